"""Fair turns: every side is timed in every round, and a ratio is taken within its round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from acn_cl.training.rate import wait

Timed = Callable[[], float]
"""Does a piece of work and says how many seconds a step of one run took."""


@dataclass(frozen=True)
class Spread:
    """What several rounds gave."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def alternate(sides: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Time every side once a round, in turn; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            took = side()
            if number:
                times[name].append(took)
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round by round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long ``work`` takes, what it has left to the device included."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started
