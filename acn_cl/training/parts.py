"""Batches that are computed in parts: one after the other (``accumulate``), or by several processes at once.

A mean over B images is the mean of its parts' means, each weighed by its share of the images; so is its gradient.
Networks that normalise over a batch see each part for itself.
"""

from typing import Any

from acn_cl.errors import SpecError
from acn_cl.spec import Experiment


def pieces(count: int, parts: int) -> list[slice]:
    """``count`` images cut into at most ``parts`` pieces, whose sizes differ by one at most; none is empty.

    >>> pieces(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    parts = min(count, parts)
    least, more = divmod(count, parts)
    ends = [least * (part + 1) + min(part + 1, more) for part in range(parts)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def share_of(count: int, rank: int, size: int) -> tuple[slice, float]:
    """Which of ``count`` images are process ``rank``'s of ``size``, and their weight in the mean over all.

    A process for which none is left takes the first image at weight 0: it has to take part in the sum all the same.
    """
    mine = pieces(count, size)[rank : rank + 1]
    if not mine:
        return slice(0, 1), 0.0
    return mine[0], (mine[0].stop - mine[0].start) / count


def refusal(experiment: Experiment, strategy: Any, processes: int) -> SpecError | None:
    """Why an experiment's batches cannot be computed in the parts that it asks for; ``None``: they can.

    Args:
        experiment: what to run.
        strategy: its plug-in.
        processes: that share each batch.
    """
    if (experiment.accumulate > 1 or processes > 1) and not getattr(strategy, "in_parts", False):
        why = f"{experiment.strategy.name} may need a step's images, answers or loss as a whole"
        if processes > 1:
            return SpecError(("strategy", "name"), f"{why}; it trains in one process only")
        return SpecError(("accumulate",), f"{why}; use 1")
    if processes == 1:
        return None
    if experiment.engine == "stacked":
        return SpecError(("engine",), f"{processes} processes train one run after the other; use auto")
    if experiment.loss.cutmix:
        return SpecError(("loss", "cutmix"), "an image would be mixed with another process's; use 0, or one process")
    if experiment.loggers:
        return SpecError(("loggers",), f"Avalanche's would see one of {processes} shares of a batch; leave them out")
    return None
