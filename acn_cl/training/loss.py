"""Cross-entropy with the changes to targets that a spec can ask for."""

import torch
from torch import Tensor
from torch.nn import functional as F


class CutMix:
    """CutMix for whole batches (S. Yun et al. 2019, arXiv 1905.04899): a box of each image comes from another one.

    Args:
        probability: share of batches that are mixed; the share of the box is Beta(1, 1), uniform.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Mix one batch.

        Args:
            images: (B, C, H, W).
            generator: on the images' device.

        Returns:
            the images, the index (B,) of each one's partner, and the share that is still its own.
        """
        batch, _, height, width = images.shape
        draws = torch.rand(4, generator=generator, device=images.device).tolist()
        partner = torch.randperm(batch, generator=generator, device=images.device)
        if draws[0] >= self.probability:
            return images, partner, 1.0
        side = (1 - draws[1]) ** 0.5
        top, bottom = _span(draws[2], side, height)
        left, right = _span(draws[3], side, width)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        return mixed, partner, 1 - (bottom - top) * (right - left) / (height * width)


def _span(centre: float, side: float, size: int) -> tuple[int, int]:
    half = side * size / 2
    return max(0, round(centre * size - half)), min(size, round(centre * size + half))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy in nats, in fp32 at least; logits (B, C) of any float type, labels (B,)."""
    precise = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(precise), labels, label_smoothing=smoothing)
