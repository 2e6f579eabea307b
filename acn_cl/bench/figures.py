"""The figures: the comparison of the sides, and how a step's cost grows."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from acn_cl.bench.plan import Plan
from acn_cl.bench.sides import Limit, Ours, Plain
from acn_cl.bench.timing import Spread, Timed, alternate, ratios, seconds
from acn_cl.training.device import autocast, choose_device, choose_precision
from acn_cl.training.stack_run import StackedRun

PLAIN, ONE, STACK, LIMIT = "plain Avalanche", "ours, one run", "ours, stacked", "matrix products alone"


def compare(plan: Plan, strategy: str, depth: int) -> dict[str, Any]:
    """Plain Avalanche, ours alone, ours stacked, and the matrix products of a step, in turn; a row of the table."""
    experiment = plan.experiment(strategy=strategy, depth=depth)
    device = choose_device(plan.device)
    precision = choose_precision(plan.precision, device)
    width = max(plan.stacks)
    one, stack = Ours(experiment, 1), Ours(experiment, width)
    limit = Limit(experiment, device, precision)
    with Plain(experiment, device, one.steps) as plain:
        sides = {PLAIN: plain.next, ONE: one.next, STACK: stack.next, LIMIT: limit.step}
        times = alternate(sides, plan.rounds)
    return {
        "strategy": strategy,
        "depth": depth,
        "precision": precision,
        "stack": width,
        "seconds per step and run": {name: asdict(Spread.of(values)) for name, values in times.items()},
        "plain / one": asdict(ratios(times[PLAIN], times[ONE])),
        "plain / stacked": asdict(ratios(times[PLAIN], times[STACK])),
        "limit / one": asdict(ratios(times[LIMIT], times[ONE])),
        "limit / stacked": asdict(ratios(times[LIMIT], times[STACK])),
        "notes": [f"{name}: {note}" for name, side in ((ONE, one), (STACK, stack)) for note in side.notes],
    }


# Growth curves: each a list of rows {value, seconds per step and run, ratio to the first}.


def _curve(plan: Plan, sides: Mapping[Any, Timed]) -> list[dict[str, Any]]:
    times = alternate({str(value): side for value, side in sides.items()}, plan.rounds)
    first = next(iter(times.values()))
    return [
        {"value": value, "seconds": asdict(Spread.of(own)), "ratio": asdict(ratios(own, first))}
        for value, own in zip(sides, times.values(), strict=True)
    ]


def _experiences(plan: Plan, strategy: str) -> list[dict[str, Any]]:
    experiment = plan.experiment(strategy=strategy)
    return _curve(plan, {count: Ours(experiment, 1).go_to(count - 1).again for count in plan.experiences})


def _depth(plan: Plan) -> list[dict[str, Any]]:
    return _curve(plan, {depth: Ours(plan.experiment(depth=depth), 1).again for depth in plan.depths})


def _width(plan: Plan) -> list[dict[str, Any]]:
    return _curve(plan, {width: Ours(plan.experiment(width=width), 1).again for width in plan.widths})


def _stack(plan: Plan) -> list[dict[str, Any]]:
    return _curve(plan, {runs: Ours(plan.experiment(), runs).again for runs in plan.stacks})


def _images(plan: Plan) -> list[dict[str, Any]]:
    return _curve(plan, {images: Ours(plan.experiment(images=images), 1).again for images in plan.images})


def _truncation(plan: Plan) -> list[dict[str, Any]]:
    """A forward pass of the deepest backbone, cut after its first k blocks."""
    experiment = plan.experiment(depth=plan.depths[-1])
    run = StackedRun(experiment, 0)
    whole = run.build_network().backbone.to(run.device)
    images = torch.zeros(plan.batch_size, *run.stream.info.image_shape, device=run.device)

    def forward(backbone: Any) -> Timed:
        def pass_() -> float:
            with torch.no_grad(), autocast(run.device, run.precision):
                return seconds(lambda: backbone(images), run.device)

        return pass_

    return _curve(plan, {depth: forward(whole.truncate(depth)) for depth in (0, *plan.depths)})


CURVES: dict[str, Callable[[Plan], list[dict[str, Any]]]] = {
    "experiences learned, naive": lambda plan: _experiences(plan, "naive"),
    "experiences learned, si": lambda plan: _experiences(plan, "si"),
    "experiences learned, ewc": lambda plan: _experiences(plan, "ewc"),
    "depth": _depth,
    "width": _width,
    "runs in the stack": _stack,
    "images a class": _images,
    "blocks kept (forward pass)": _truncation,
}
