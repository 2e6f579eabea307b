"""Which runs can train as one stack: a pure function of their specs and the sizes of their experiences."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from acn_cl.spec import Experiment
from acn_cl.tables import is_dotted

Job = tuple[Experiment, int]
"""An experiment and a seed of it."""
FREE = ("name", "about", "seeds", "pin", "engine")
"""Sections in which runs of one stack may differ without more ado."""


def group(
    jobs: Sequence[Job],
    *,
    can_stack: Callable[[Job], bool],
    sizes: Callable[[Job], object],
    widest: Callable[[Job], int],
) -> list[list[int]]:
    """Partition jobs into stacks: runs that differ in seed, pins, class order and λ only.

    λ = 0 does not stand beside λ > 0. Every image count must agree, experience by experience, and with global labels
    the class order.

    >>> digits = Experiment(stream={"name": "split-digits"}, engine="avalanche")
    >>> group([(digits, 0), (digits, 1)], can_stack=lambda job: True, sizes=lambda job: 0, widest=lambda job: 8)
    [[0], [1]]

    Args:
        jobs: in the order in which they are to be run.
        can_stack: whether a job's strategy works on stacked parameters; asked of those that qualify otherwise.
        sizes: the image counts of a job's experiences, anything that compares by value; asked where they matter.
        widest: runs in a job's stack at most.

    Returns:
        indices into ``jobs``; every index once. A stack stands where the first of its runs stood.
    """
    stacks: list[list[int]] = []
    open_stack: dict[object, list[int]] = {}
    for index, job in enumerate(jobs):
        if refusal(job[0]) is not None or not can_stack(job) or (most := widest(job)) == 1:
            stacks.append([index])
            continue
        key = (_key(job[0]), sizes(job), _order_of_heads(*job))
        if key not in open_stack or len(open_stack[key]) >= most:
            open_stack[key] = []
            stacks.append(open_stack[key])
        open_stack[key].append(index)
    return stacks


def refusal(experiment: Experiment) -> str | None:
    """Why a run cannot be in a stack whatever its strategy is; ``None``: it can."""
    if experiment.engine == "avalanche":
        return "engine is avalanche"
    if experiment.loggers:
        return "Avalanche's loggers need its call-backs"
    if is_dotted(experiment.stream.name):
        return "the stream is somebody's own"
    if is_dotted(experiment.backbone.name or ""):
        return "the backbone is somebody's own"
    return None


def _key(experiment: Experiment) -> str:
    spec: dict[str, Any] = {key: value for key, value in experiment.as_dict().items() if key not in FREE}
    strategy = dict(spec["strategy"])
    if "lambda" in strategy:
        strategy["lambda"] = strategy["lambda"] > 0
    spec["strategy"] = strategy
    spec["stream"] = {key: value for key, value in spec["stream"].items() if key != "class_order"}
    return json.dumps(spec, sort_keys=True)


def _order_of_heads(experiment: Experiment, seed: int) -> object:
    """With global labels a head is as wide as its largest label, so that the class order must be the same."""
    stream = experiment.stream
    if stream.labels != "global":
        return None
    if stream.class_order != "seeded":
        return stream.class_order
    return seed if experiment.pin.class_order is None else experiment.pin.class_order
