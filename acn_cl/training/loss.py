"""Cross-entropy with the changes to targets that a spec can ask for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from acn_cl.training.heads import MASKED


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
    """Mean cross-entropy in nats, in fp32 at least.

    Args:
        logits: (B, C) of any float type. Classes that an image's head does not have are filled with ``MASKED`` or less.
        labels: (B,).
        smoothing: what of each target is spread evenly over the classes of the image's own head.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not smoothing:
        return F.cross_entropy(logits, labels)
    there = logits > MASKED
    log_p = logits.log_softmax(1)
    evenly = log_p.masked_fill(~there, 0.0).sum(1) / there.sum(1)
    chosen = log_p.gather(1, labels[:, None])[:, 0]
    return -((1 - smoothing) * chosen + smoothing * evenly).mean()
