"""Effective depth: how many layers a network really uses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_ROUNDING = 1e-9  # so that an accuracy exactly on the tolerance counts as within it, whatever the last bit


@dataclass(frozen=True)
class EffectiveDepth:
    """The result, with the tolerance that it was found with: one means nothing without the other."""

    depth: int
    """Layers from which on every sub-network is as good as the whole one; 0 … L."""
    tolerance: float
    """How much accuracy may be missing, as a fraction (0.005: half a point)."""


def effective_depth(
    accuracy_by_depth: ArrayLike, tolerance: float = 0.005, samples: int | None = None
) -> EffectiveDepth:
    """The smallest k with ``accuracy(j) >= accuracy(L) - tolerance`` for all j >= k.

    The "cutoff layer" of arXiv 2506.09714, made proof against a lucky shallow sub-network by "for all j".

    >>> effective_depth([0.1, 0.6, 0.897, 0.9])
    EffectiveDepth(depth=2, tolerance=0.005)

    Args:
        accuracy_by_depth: accuracy of sub-networks 0 … L, (L + 1,), as fractions in 0 … 1.
        tolerance: accuracy that may be missing, as a fraction.
        samples: test images behind each accuracy; the tolerance is raised to at least one of them.

    Raises:
        ValueError: the accuracies are not a list of numbers in 0 … 1, or the tolerance is negative.
    """
    accuracy = np.asarray(accuracy_by_depth, dtype=float)
    if accuracy.ndim != 1 or accuracy.size == 0 or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError(f"accuracy_by_depth must be L + 1 fractions in 0 … 1, not {accuracy_by_depth!r}")
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, not {tolerance}")
    if samples is not None:
        tolerance = max(tolerance, 1 / samples)
    too_low = np.flatnonzero(accuracy < accuracy[-1] - tolerance - _ROUNDING)
    return EffectiveDepth(depth=int(too_low[-1]) + 1 if too_low.size else 0, tolerance=tolerance)
