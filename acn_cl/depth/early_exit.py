"""Early exit: stop at the first sub-network that is sure of its answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class EarlyExitCurve:
    """Accuracy against cost, one point a threshold, in the order they were given."""

    threshold: NDArray[np.float64]
    """Entropy in nats below which an image leaves."""
    accuracy: NDArray[np.float64]
    """Fractions in 0 … 1."""
    flops: NDArray[np.float64]
    """Mean floating-point operations an image, heads left out."""
    speed_up: NDArray[np.float64]
    """Operations of the whole network over ``flops``."""


def exit_depths(logits: Tensor, threshold: float, exits: Sequence[int] | None = None) -> Tensor:
    """The depth at which each image leaves, (N,): the first exit with an entropy below ``threshold``, or L.

    Source: arXiv 2506.09714, after BranchyNet (arXiv 1709.01686).

    Args:
        logits: of sub-networks 0 … L, (L + 1, N, C), from :func:`acn_cl.depth.probing.logits_by_depth`.
        threshold: in nats; the entropy of C classes lies in 0 … ln C.
        exits: depths at which an image may leave; all by default. L is always the last one.

    Raises:
        ValueError: an exit is not in 0 … L.
    """
    last = len(logits) - 1
    allowed = torch.zeros(last + 1, 1, dtype=torch.bool, device=logits.device)
    wrong = [k for k in exits or [] if not 0 <= k <= last]
    if wrong:
        raise ValueError(f"exits must be depths in 0 … {last}, not {wrong[0]}")
    allowed[list(range(last + 1) if exits is None else exits)] = True
    log_p = logits.double().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    leaves = (entropy < threshold) & allowed
    leaves[last] = True
    return leaves.int().argmax(0)  # the first of equal maxima


def early_exit_curve(
    logits: Tensor,
    labels: Tensor,
    flops_by_depth: Sequence[int],
    thresholds: Sequence[float],
    exits: Sequence[int] | None = None,
) -> EarlyExitCurve:
    """Accuracy and mean cost at each threshold.

    Args:
        logits: of sub-networks 0 … L, (L + 1, N, C).
        labels: (N,), class indices.
        flops_by_depth: operations of sub-networks 0 … L for one image, from :meth:`Backbone.flops_by_depth`.
        thresholds: entropies in nats.
        exits: as for :func:`exit_depths`.
    """
    right = logits.argmax(-1) == labels
    cost = torch.tensor(flops_by_depth, dtype=torch.float64, device=logits.device)
    points = []
    for threshold in thresholds:
        depth = exit_depths(logits, threshold, exits)
        accuracy = right.gather(0, depth[None]).double().mean()
        points.append((float(accuracy), float(cost[depth].mean())))
    accuracies, flops = np.array(points).T
    return EarlyExitCurve(
        threshold=np.asarray(thresholds, dtype=float),
        accuracy=accuracies,
        flops=flops,
        speed_up=flops_by_depth[-1] / flops,
    )
