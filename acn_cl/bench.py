"""How fast the suite is: beside plain Avalanche, and beside what the hardware's matrix products allow.

All sides of a comparison are timed in turn, round after round, so that whatever else the machine does falls on all of
them; a ratio is taken within each round. Plain Avalanche trains in a process of its own, which waits when it is not
its turn, so that it has nothing of ours. A time is that of one optimiser step of one run, in seconds, what the strategy
does at an experience's end included in its share.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import torch
from pydantic import ValidationError

from acn_cl.errors import SpecError
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.runs.environment import versions
from acn_cl.runs.files import write_atomically, write_json
from acn_cl.spec import Experiment, message_of
from acn_cl.training.device import autocast, choose_device, choose_precision, fp32_products
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.per_run import choose_per_run
from acn_cl.training.rate import MatrixProducts, wait
from acn_cl.training.session import Results
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_training import StackTraining

PLAIN_PROGRAM = "acn_cl.training.plain_avalanche"
PLAIN, ONE, STACK, LIMIT = "plain Avalanche", "ours, one run", "ours, stacked", "matrix products alone"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        device: as in a spec.
        precision: as in a spec; plain Avalanche runs in fp32.
        stream: a task-incremental stream with more experiences than ``rounds``.
        backbone: what the backbones have in common.
        strategies: of the comparison; naive, si, ewc.
        depths: of the comparison, L.
        widths: features of a token, for the growth curve.
        stacks: runs in a stack, for the growth curve; the largest is the one that is compared.
        images: training images a class, for the growth curve; the smallest is used everywhere else.
        experiences: how many are learned when a step is timed, for the growth curve.
        batch_size: images a step and run.
        rounds: how often each side is timed, after one round that does not count.

    Raises:
        SpecError: there is no such device or precision.
    """

    device: str = "auto"
    precision: str = "auto"
    stream: Mapping[str, Any] = field(default_factory=lambda: {"name": "split-cifar100"})
    backbone: Mapping[str, Any] = field(default_factory=lambda: {"name": "ac_mixer", "patch": 4})
    strategies: Sequence[str] = ("naive", "si", "ewc")
    depths: Sequence[int] = (5, 10, 15)
    widths: Sequence[int] = (64, 128, 256)
    stacks: Sequence[int] = (1, 2, 4)
    images: Sequence[int] = (125, 250, 500)
    experiences: Sequence[int] = (2, 20)
    batch_size: int = 64
    rounds: int = 7

    def __post_init__(self) -> None:
        try:
            self.experiment()
        except ValidationError as error:
            first = error.errors()[0]
            raise SpecError(first["loc"], message_of(dict(first))) from None

    def experiment(self, **changes: Any) -> Experiment:
        """One epoch an experience of this plan; ``images``, ``depth``, ``width`` and ``strategy`` may be changed."""
        backbone = {"depth": self.depths[0], "width": self.widths[len(self.widths) // 2], **self.backbone}
        backbone |= {key: changes[key] for key in ("depth", "width") if key in changes}
        return Experiment(
            stream={**self.stream, "images_per_class": changes.get("images", self.images[0])},
            backbone=backbone,
            strategy={"name": changes.get("strategy", "si")},
            epochs=1,
            batch_size=self.batch_size,
            device=self.device,
            precision=changes.get("precision", self.precision),
        )


SAME = ("device", "precision", "threads", "versions")
"""What of a machine must be the same for a bench to go on."""

QUICK = Plan(
    stream={"name": "split-digits", "class_order": "fixed"},
    backbone={"name": "ac_mixer", "patch": 2, "tokens_hidden": 16, "channels_hidden": 64},
    depths=(1, 2),
    widths=(16, 32),
    stacks=(1, 2),
    images=(64, 128),
    experiences=(2, 4),
    batch_size=32,
    rounds=3,
)
"""Small enough for CI: that everything runs, not how fast."""

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


@dataclass
class Report:
    """All figures of one run of the bench."""

    plan: dict[str, Any]
    machine: dict[str, Any]
    comparison: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def bench(plan: Plan, folder: Path, say: Callable[[str], None] = lambda line: None) -> Report:
    """Measure everything in ``plan``; what is measured is written at once, and a bench that was cut off goes on.

    Args:
        plan: what to measure.
        folder: for ``bench.json`` and ``bench.md``. What is there is kept if it is of the same plan and machine.
        say: told what is being measured, one line a time.

    Raises:
        UserError: the device or the data is not there, or the folder cannot be written.
    """
    device = choose_device(plan.device)
    report = _begun(plan, _machine(device, choose_precision(plan.precision, device)), folder)
    rows = [(strategy, depth) for strategy in plan.strategies for depth in plan.depths]
    there = len(report.comparison) + len(report.curves)
    if there:
        total = len(rows) + len(CURVES)
        say(f"{folder}: {there} of {total} figures are there already; another folder measures them anew")
    for strategy, depth in rows[len(report.comparison) :]:
        say(f"{strategy}, L = {depth}")
        report.comparison.append(compare(plan, strategy, depth))
        write(report, folder)
    for name, curve in CURVES.items():
        if name not in report.curves:
            say(f"growth with {name}")
            report.curves[name] = curve(plan)
            write(report, folder)
    report.machine["load at the end"] = os.getloadavg()[0]
    report.machine["largest memory of the process, MiB"] = _peak_memory(device)
    write(report, folder)
    return report


def _begun(plan: Plan, machine: dict[str, Any], folder: Path) -> Report:
    """What the folder holds of the same plan and machine, or a report of nothing yet."""
    new = Report(json.loads(json.dumps(asdict(plan))), machine)
    try:
        there = Report(**json.loads((folder / "bench.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return new
    same = there.plan == new.plan and all(there.machine.get(key) == machine[key] for key in SAME)
    return there if same else new


# Timing.


def alternate(sides: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Time every side once a round, in turn; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            seconds = side()
            if number:
                times[name].append(seconds)
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round by round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


class _Silent:
    """A watcher that does not watch."""

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        pass

    def experience_done(self, experience: int, results: Results) -> None:
        pass

    def save(self, checkpoint: Checkpoint) -> None:
        pass


class Ours:
    """Runs of ours that learn one experience after the other, or one experience again and again.

    Args:
        experiment: of all runs.
        runs: how many; their seeds are 0, 1, …
    """

    def __init__(self, experiment: Experiment, runs: int) -> None:
        stack = [StackedRun(experiment, seed) for seed in range(runs)]
        self._per_run = choose_per_run(stack[0].device, runs)
        self.training = StackTraining(
            stack, [_Silent()] * runs, StopRequest(), self._per_run, lambda number, checkpoint: None
        )
        self._device, self._runs, self._next = stack[0].device, runs, 0
        self.steps = -(-len(stack[0].stream.experiences[0].train) // experiment.batch_size)

    def next(self) -> float:
        """Learn the next experience."""
        self._next += 1
        return self._learn(self._next - 1)

    def go_to(self, experience: int) -> "Ours":
        """Learn what comes before ``experience``."""
        while self._next < experience:
            self.next()
        return self

    def again(self) -> float:
        """Learn the experience that was gone to, or go on with it."""
        return self._learn(self._next)

    def _learn(self, experience: int) -> float:
        with fp32_products(tf32=False):
            return _seconds(lambda: self.training.learn(experience), self._device) / self.steps / self._runs


class Plain:
    """Plain Avalanche in a process of its own, one run that learns one experience after the other.

    Args:
        experiment: of the run; its seed is 0.
        device: where it trains.
        steps: of an experience.
    """

    def __init__(self, experiment: Experiment, device: torch.device, steps: int) -> None:
        told = {
            "experiment": experiment.as_dict(),
            "seed": 0,
            "device": str(device),
            "threads": torch.get_num_threads(),
        }
        self._steps, self._next = steps, 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", PLAIN_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._ask(json.dumps(told))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it ends

    def next(self) -> float:
        """Learn the next experience."""
        self._ask(str(self._next))
        self._next += 1
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{PLAIN_PROGRAM} ended with code {self._process.wait()}; its error stands above")
        return float(answer) / self._steps

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


# The comparison.


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
    }


class Limit:
    """The time that a step's operations would take at the rate of the backbone's largest matrix product.

    Operations: those of the forward pass, as torch's counter has them, three times (a backward pass is two).
    Rate: of (64 B, d) by (d, 4d) and back, in the given precision, measured anew each time.
    """

    def __init__(self, experiment: Experiment, device: torch.device, precision: str) -> None:
        backbone = StackedRun(experiment, 0).build_network().backbone
        self._flops = 3 * backbone.flops_by_depth(experiment.batch_size)[-1]
        self._products = MatrixProducts(device, precision, 64 * experiment.batch_size, backbone.feature_size)

    def step(self) -> float:
        """Seconds."""
        return self._flops / self._products.rate()


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
                return _seconds(lambda: backbone(images), run.device)

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


# The report.


def write(report: Report, folder: Path) -> Path:
    """Write ``bench.json`` and ``bench.md`` into ``folder``; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", asdict(report))
    write_atomically(folder / "bench.md", lambda part: part.write_text(markdown(report), encoding="utf-8"))
    return folder / "bench.md"


def markdown(report: Report) -> str:
    """The report as two kinds of tables; each cell a median and its quartiles over the rounds."""
    lines = ["# Speed", "", *(f"- {key}: {value}" for key, value in report.machine.items()), ""]
    lines += [
        "Median (quartiles) over rounds in which all sides take turns. A step is of one run; ratios are taken round by",
        "round. Plain Avalanche runs in fp32, as its users do.",
        "",
        f"| strategy | L | {PLAIN}, ms | {ONE}, ms | {STACK}, ms | plain / one | plain / stacked | limit / one |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report.comparison:
        times = row["seconds per step and run"]
        cells = [_cell(times[name], 1e3, 1) for name in (PLAIN, ONE, STACK)]
        cells += [_cell(row[key], 1, 2) for key in ("plain / one", "plain / stacked", "limit / one")]
        lines.append(f"| {row['strategy']} | {row['depth']} | {' | '.join(cells)} |")
    for name, curve in report.curves.items():
        lines += ["", f"| {name} | ms a step and run | times the first |", "|---|---|---|"]
        lines += [f"| {r['value']} | {_cell(r['seconds'], 1e3, 2)} | {_cell(r['ratio'], 1, 2)} |" for r in curve]
    return "\n".join(lines) + "\n"


def _cell(spread: Mapping[str, float], factor: float, digits: int) -> str:
    median, low, high = (f"{factor * spread[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def _machine(device: torch.device, precision: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cores": psutil.cpu_count(logical=False),
        "versions": versions(),
        "load at the start": os.getloadavg()[0],
    }


def _processor() -> str:
    """Its model, where Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return int(psutil.Process().memory_info().rss) >> 20
