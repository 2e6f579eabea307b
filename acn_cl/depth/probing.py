"""Layer probing: what each sub-network alone would answer, with the same norm, pooling and head."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from acn_cl.backbones.backbone import Backbone

Head = Callable[[Tensor], Tensor]
"""Features (n, d) -> logits (n, classes)."""


@dataclass(frozen=True)
class Probe:
    """What the sub-networks 0 … L score on the same images."""

    accuracy: NDArray[np.float64]
    """(L + 1,), fractions in 0 … 1."""
    loss: NDArray[np.float64]
    """(L + 1,), mean cross-entropy in nats."""
    samples: int
    """Images behind each number."""
    answers: NDArray[np.int64]
    """(C,), how often the whole network gave each answer."""


def probe(backbone: Backbone, head: Head, images: Tensor, labels: Tensor, batch_size: int = 256) -> Probe:
    """Accuracy and loss of every sub-network, in one pass over the images (arXiv 2506.09714, "layer probing").

    Args:
        backbone: evaluated in evaluation mode, and left in the mode it was in.
        head: features (n, d) -> logits (n, C); the same for every depth.
        images: (N, C, H, W), float, on the backbone's device.
        labels: (N,), class indices, on the same device.
        batch_size: images at once; the result does not depend on it.
    """
    return probe_batches(
        backbone, head, zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)
    )


def probe_batches(backbone: Backbone, head: Head, batches: Iterable[tuple[Tensor, Tensor]]) -> Probe:
    """As :func:`probe`, on batches of images (B, C, H, W) and labels (B,) that are made as they are needed."""
    found: list[Tensor] = []
    samples = 0
    with evaluation_mode(backbone), torch.no_grad():
        for images, labels in batches:
            found.append(scores(_logits(backbone, head, images), labels))
            samples += len(labels)
    # One transfer at the end, not one a batch.
    accuracy, loss, answers = split_scores(torch.stack(found).sum(0).cpu(), backbone.depth)
    return Probe(accuracy.numpy() / samples, loss.numpy() / samples, samples, answers.long().numpy())


def scores(logits: Tensor, labels: Tensor) -> Tensor:
    """What a batch adds to the sub-networks' scores: right answers, losses in nats, and the whole network's answers.

    Args:
        logits: (L + 1, B, C).
        labels: (B,).

    Returns:
        (2 (L + 1) + C,) float64, for :func:`split_scores`; works under ``torch.func.vmap``.
    """
    expected = labels.expand(len(logits), -1)
    chosen = logits.argmax(-1)
    loss = F.cross_entropy(logits.float().movedim(-1, 1), expected, reduction="none").sum(1, dtype=torch.float64)
    each_class = torch.arange(logits.shape[-1], device=logits.device)
    answers = (chosen[-1, :, None] == each_class).sum(0, dtype=torch.float64)
    return torch.cat([(chosen == expected).sum(1, dtype=torch.float64), loss, answers])


def split_scores(found: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of :func:`scores` apart: right answers (…, L + 1), losses (…, L + 1), answers by class (…, C)."""
    right, loss, answers = found.tensor_split([depth + 1, 2 * (depth + 1)], -1)
    return right, loss, answers


def accuracy_by_depth(
    backbone: Backbone, head: Head, images: Tensor, labels: Tensor, batch_size: int = 256
) -> NDArray[np.float64]:
    """Accuracy of sub-networks 0 … L, (L + 1,); arguments as for :func:`probe`."""
    return probe(backbone, head, images, labels, batch_size).accuracy


def logits_by_depth(backbone: Backbone, head: Head, images: Tensor, batch_size: int = 256) -> Tensor:
    """Logits of every sub-network, (L + 1, N, C); arguments as for :func:`probe`."""
    with evaluation_mode(backbone), torch.no_grad():
        return torch.cat([_logits(backbone, head, batch) for batch in torch.split(images, batch_size)], dim=1)


def _logits(backbone: Backbone, head: Head, images: Tensor) -> Tensor:
    """(B, C, H, W) -> (L + 1, B, classes). The head sees a plain batch, so that any head will do."""
    features = backbone.forward_depths(images)
    return head(features.flatten(0, 1)).view(*features.shape[:2], -1)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """``module`` in evaluation mode, and afterwards in the mode that it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
