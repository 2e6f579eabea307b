"""Does a strategy do what it says? Checks for anyone's own, in the spirit of scikit-learn's ``check_estimator``.

    from acn_cl.strategies.testing import check_strategy

    check_strategy("ewc", lambda_=100.0)
    check_strategy("my_lab.methods:MyStrategy", strength=0.1)
    check_strategy(MyStrategy)

Each check trains small networks on three experiences of scikit-learn's digits, through the suite's own run; all of
them take some seconds. What a strategy can be held to is what it declares, as
:class:`acn_cl.strategies.plugin.StrategyPlugin` has it; a plain Avalanche plug-in declares nothing and is held to the
rest.
"""

import random
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from avalanche.core import BasePlugin
from torch import Tensor

from acn_cl.errors import SpecError
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from acn_cl.spec import Experiment
from acn_cl.strategies.build import build_strategy
from acn_cl.strategies.regulariser import Gradients, Regulariser, RegulariserPlugin
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.randomness import own_random_state
from acn_cl.training.session import Results, Session

Strategy = str | Callable[..., Any]
"""A name of the table, a dotted path, or what makes a plug-in or regulariser from keyword arguments."""
Scenario = Literal["task-incremental", "class-incremental", "domain-incremental"]

EXPERIENCES, EPOCHS, DEPTH = 3, 6, 2
CHANCE: dict[Scenario, float] = {"task-incremental": 1 / 2, "class-incremental": 1 / 6}
CLEARLY = 0.1
"""How far above chance the accuracy on all experiences so far must be; chance itself spreads by about 0.04."""
PER_IMAGE = 64
"""Numbers that a strategy may keep of an image besides its pixels: labels, logits and the like."""


class StrategyFault(AssertionError):
    """A strategy does not do what it says, or what every strategy must."""


@dataclass
class Trial:
    """What one small run gave.

    Args:
        weights: the network's after each experience.
        accuracy: (experiences, experiences), rows trained, columns evaluated; nan where nothing was evaluated.
        importance: what the plug-in's ``importance()`` gave after each experience, by parameter name.
        elements: numbers in the tensors of its ``state()`` after each experience.
        checkpoints: everything saved, in order.
        strategy: the plug-in.
        pixels: of one image.
    """

    weights: list[dict[str, Tensor]] = field(default_factory=list)
    accuracy: np.ndarray[Any, np.dtype[np.float64]] = field(
        default_factory=lambda: np.full((EXPERIENCES, EXPERIENCES), np.nan)
    )
    importance: list[dict[str, Tensor]] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    strategy: Any = None
    pixels: int = 0


class _Recorder:
    """Fills a trial while its session trains, and asks for a stop after one epoch if it is told to."""

    def __init__(self, trial: Trial, session: Session, stop: StopRequest, interrupt: tuple[int, int] | None) -> None:
        self._trial, self._session, self._stop, self._interrupt = trial, session, stop, interrupt

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        if (experience, epoch) == self._interrupt:
            self._stop.signal = signal.SIGINT

    def experience_done(self, experience: int, results: Results) -> None:
        trial, strategy = self._trial, self._session.strategy
        trial.weights.append({name: t.detach().cpu().clone() for name, t in self._session.network.state_dict().items()})
        for row in results.accuracy:
            if row["trained"] == experience and row["depth"] == DEPTH and row["evaluated"] < EXPERIENCES:
                trial.accuracy[experience, row["evaluated"]] = row["accuracy"]
        importance = strategy.importance() if _has_importance(strategy) else {}
        trial.importance.append({name: t.detach().cpu().clone() for name, t in importance.items()})
        state = strategy.state().values() if hasattr(strategy, "state") else ()
        trial.elements.append(sum(t.numel() for t in state if isinstance(t, Tensor)))

    def save(self, checkpoint: Checkpoint) -> None:
        with tempfile.TemporaryDirectory() as folder:  # through the files, so that what files cannot hold shows
            save_checkpoint(Path(folder), checkpoint)
            self._trial.checkpoints.append(load_checkpoint(Path(folder))[0] or checkpoint)


def run_trial(
    make: Callable[[], BasePlugin[Any]],
    scenario: Scenario = "task-incremental",
    *,
    seed: int = 0,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    interrupt: tuple[int, int] | None = None,
    start: Checkpoint | None = None,
) -> Trial:
    """Train a tiny AC-Mixer on three experiences of digits.

    Args:
        make: gives the strategy.
        scenario: the stream's.
        seed: the run's.
        device: ``cpu`` or ``cuda``.
        precision: of the forward passes.
        interrupt: stop one step after this (experience, epoch); the last checkpoint is then in the middle of an epoch.
        start: go on from here.
    """
    experiment = Experiment(
        stream={
            "name": "split-digits",
            "scenario": scenario,
            "class_order": "fixed",
            "images_per_class": 32,
            "stop_after": EXPERIENCES,
        },
        backbone={"name": "ac_mixer", "depth": DEPTH, "width": 16, "tokens_hidden": 8, "channels_hidden": 16},
        optimizer={"name": "adamw", "lr": 5e-3},
        epochs=EPOCHS,
        batch_size=16,
        precision=precision,
        device=device,
        checkpoint={"every_seconds": 3600.0},
    )
    session = Session(experiment, seed, Path())
    session.strategy = make()
    trial, stop = Trial(strategy=session.strategy, pixels=int(np.prod(session.stream.info.image_shape))), StopRequest()
    with suppress(Interrupted):
        session.train(_Recorder(trial, session, stop, interrupt), stop, start)
    return trial


@lru_cache(maxsize=8)
def naive(scenario: Scenario, seed: int = 0, device: str = "cpu") -> Trial:
    """The trial without a strategy, which others are compared with."""
    return run_trial(lambda: build_strategy("naive"), scenario, seed=seed, device=device)


class Subject:
    """A strategy under test: how to make it, and its trials, each run once."""

    def __init__(self, strategy: Strategy, options: dict[str, Any]) -> None:
        self.strategy, self.options = strategy, options
        self.name = strategy if isinstance(strategy, str) else getattr(strategy, "__name__", repr(strategy))
        self._trials: dict[Scenario, Trial] = {}

    def make(self, **changes: Any) -> BasePlugin[Any]:
        """A new plug-in, with the subject's options but for ``changes``."""
        options = self.options | changes
        if isinstance(self.strategy, str):
            return build_strategy(self.strategy, **options)
        made = self.strategy(**options)
        plugin = RegulariserPlugin(made) if isinstance(made, Regulariser) else made
        if not isinstance(plugin, BasePlugin):
            raise StrategyFault(f"{self.name}: expected a plug-in or a Regulariser, and got a {type(made).__name__}")
        return plugin

    def trial(self, scenario: Scenario = "task-incremental") -> Trial:
        """The run on the CPU in fp32 with seed 0."""
        if scenario not in self._trials:
            self._trials[scenario] = run_trial(self.make, scenario)
        return self._trials[scenario]

    def expect(self, true: bool, what: str, happened: object) -> None:
        """Raise :class:`StrategyFault` unless ``true``."""
        if not true:
            raise StrategyFault(f"{self.name}: expected {what}, and {happened}")


SCENARIOS: tuple[Scenario, ...] = ("task-incremental", "class-incremental")
Check = Callable[[Subject], str | None]
"""Raises, or returns ``None`` when all is well, or says why there was nothing to check."""


def check_inert(subject: Subject) -> str | None:
    """With the options that it declares inert, the strategy is naive, bit for bit."""
    inert = getattr(subject.make(), "inert", None)
    if inert is None:
        return "it declares no options with which it does nothing"
    for scenario in SCENARIOS:
        trial = run_trial(lambda: subject.make(**inert), scenario)
        for index, (ours, theirs) in enumerate(zip(trial.weights, naive(scenario).weights, strict=True)):
            subject.expect(
                _same(ours, theirs),
                f"with {inert} the weights of naive",
                f"after experience {index} of the {scenario} stream they differ by up to {_distance(ours, theirs):.3g}",
            )
    return None


def check_acts(subject: Subject) -> str | None:
    """The strategy changes how the backbone learns the second experience.

    The backbone, because a penalty that is always 0 still gives old heads a gradient, which AdamW lets decay.
    """
    if getattr(subject.make(), "inert", None) == {}:
        return "it declares that it does nothing"
    for scenario in SCENARIOS:
        ours, theirs = (_backbone(trial.weights[1]) for trial in (subject.trial(scenario), naive(scenario)))
        subject.expect(
            not _same(ours, theirs),
            "another backbone than naive's after the second experience",
            f"they are equal ({scenario})",
        )
    return None


def check_importance(subject: Subject) -> str | None:
    """Importance is finite and somewhere not zero, and nowhere negative unless it is declared signed."""
    trial = subject.trial()
    if not any(trial.importance):
        if _has_importance(trial.strategy):
            raise StrategyFault(f"{subject.name}: expected importances after an experience, and there are none")
        return "it has no importance"
    for index, importance in enumerate(trial.importance):
        values = torch.cat([value.flatten() for value in importance.values()])
        subject.expect(
            bool(values.isfinite().all()), "finite importances", f"experience {index} left some that are not"
        )
        subject.expect(bool(values.any()), "importances that are not zero", f"all are after experience {index}")
        if not getattr(trial.strategy, "signed", False):
            subject.expect(
                float(values.min()) >= 0,
                "importances of at least 0 (declare `signed = True` if they may be negative)",
                f"the smallest is {float(values.min()):.3g} after experience {index}",
            )
    return None


def check_learns(subject: Subject) -> str | None:
    """After the last experience the accuracy on all of them is clearly above chance."""
    for scenario in SCENARIOS:
        accuracy = float(subject.trial(scenario).accuracy[-1].mean())
        subject.expect(
            accuracy > CHANCE[scenario] + CLEARLY,
            f"an accuracy above {CHANCE[scenario] + CLEARLY:.2f} on the {scenario} stream, where chance is "
            f"{CHANCE[scenario]:.2f}",
            f"it is {accuracy:.2f}",
        )
    return None


def check_repeats(subject: Subject) -> str | None:
    """One seed gives one run, whatever the caller's random state is, which is left alone; another seed another."""
    for scenario in SCENARIOS:
        with own_random_state(1):  # another one than the first trial met
            before = _random_state()
            again = run_trial(subject.make, scenario).weights[-1]
            subject.expect(before == _random_state(), "the caller's random state as it was", "it has moved")
        first = subject.trial(scenario).weights[-1]
        subject.expect(
            _same(again, first),
            "the same weights from the same seed",
            f"two {scenario} runs differ by up to {_distance(again, first):.3g}",
        )
    other = run_trial(subject.make, seed=1)
    subject.expect(not _same(other.weights[-1], subject.trial().weights[-1]), "other weights from seed 1", "the same")
    return None


def check_resumes(subject: Subject) -> str | None:
    """A run that goes on from a checkpoint, between experiences or within an epoch, ends in the same weights."""
    if not (hasattr(subject.make(), "state") and hasattr(subject.make(), "load_state")):
        return "it has no state() and load_state(), so a run that is interrupted starts again"
    for scenario in SCENARIOS:
        between = next(c for c in subject.trial(scenario).checkpoints if (c.experience, c.epoch) == (2, 0))
        within = run_trial(subject.make, scenario, interrupt=(1, 1)).checkpoints[-1]
        for start in (between, within):
            resumed = run_trial(subject.make, scenario, start=start)
            whole = subject.trial(scenario).weights[-1]
            subject.expect(
                _same(resumed.weights[-1], whole),
                "a resumed run to end in the weights of an uninterrupted one",
                f"going on from experience {start.experience}, epoch {start.epoch}, batch {start.batch} of the "
                f"{scenario} stream they differ by up to {_distance(resumed.weights[-1], whole):.3g}; is something "
                "missing in state(), or done once more in before_training_exp?",
            )
    return None


def check_heads(subject: Subject) -> str | None:
    """Every experience gets its head, weights stay finite, and a step moves the heads that it is declared to move."""
    for scenario in SCENARIOS:
        trial = subject.trial(scenario)
        heads = {name.split(".")[2] for name in trial.weights[-1] if name.startswith("heads.blocks.")}
        subject.expect(len(heads) == EXPERIENCES, f"{EXPERIENCES} heads", f"there are {len(heads)} ({scenario})")
        wrong = [name for name, t in trial.weights[-1].items() if not t.isfinite().all()]
        subject.expect(not wrong, "finite weights", f"those of {', '.join(wrong)} are not ({scenario})")
    moves = getattr(subject.make(), "moves", None)
    if moves is not None:
        before, after = (subject.trial().weights[t]["heads.blocks.0.weight"] for t in (1, 2))
        subject.expect(
            torch.equal(before, after) == (moves == "the current head"),
            f"{moves} to move (`moves`)",
            f"the third experience {'left' if torch.equal(before, after) else 'moved'} the first one's head",
        )
    return None


def check_memory(subject: Subject) -> str | None:
    """The state is no larger than declared."""
    trial = subject.trial()
    if not hasattr(trial.strategy, "keeps_weights"):
        return "it declares no bound on what it keeps"
    strategy = trial.strategy
    for index, elements in enumerate(trial.elements):
        network = sum(t.numel() for t in trial.weights[index].values())
        bound = strategy.keeps_weights * network + strategy.keeps_images * (trial.pixels + PER_IMAGE)
        subject.expect(
            elements <= bound,
            f"a state of at most {bound:.0f} numbers ({strategy.keeps_weights} times the network's {network}, and "
            f"{strategy.keeps_images} images)",
            f"it holds {elements} after experience {index}",
        )
    return None


def check_domains(subject: Subject) -> str | None:
    """It runs where all experiences share one head, or refuses in words."""
    try:
        trial = run_trial(subject.make, "domain-incremental")
    except SpecError as refusal:
        return f"refused: {refusal}"
    accuracy = float(trial.accuracy[-1, -1])
    subject.expect(accuracy > 0.5 + CLEARLY, "the last domain to be learned", f"its accuracy is {accuracy:.2f}")
    return None


def check_precision(subject: Subject) -> str | None:
    """It runs in bf16 and learns there."""
    trial = run_trial(subject.make, precision="bf16")
    accuracy = float(trial.accuracy[-1].mean())
    wanted = CHANCE["task-incremental"] + CLEARLY
    subject.expect(accuracy > wanted, f"an accuracy above {wanted:.2f} in bf16", f"it is {accuracy:.2f}")
    return None


def check_cuda(subject: Subject) -> str | None:
    """On a GPU it is inert where it declares to be, and acts and learns as it does on a CPU."""
    if not torch.cuda.is_available():
        return "there is no CUDA device here"
    plugin = subject.make()
    trial = run_trial(subject.make, device="cuda")
    accuracy = float(trial.accuracy[-1].mean())
    wanted = CHANCE["task-incremental"] + CLEARLY
    subject.expect(accuracy > wanted, f"an accuracy above {wanted:.2f} on cuda", f"it is {accuracy:.2f}")
    inert = getattr(plugin, "inert", None)
    if inert is not None:
        ours = run_trial(lambda: subject.make(**inert), device="cuda").weights[-1]
        theirs = naive("task-incremental", device="cuda").weights[-1]
        distance = _distance(ours, theirs)  # kernels need not be deterministic
        subject.expect(distance < 1e-4, f"with {inert} the weights of naive on cuda", f"they differ by {distance:.3g}")
    return None


def check_stacks(subject: Subject) -> str | None:
    """A regulariser acts element by element: on parameters of two runs side by side it does what it does on each."""
    plugin = subject.make()
    if not isinstance(plugin, RegulariserPlugin):
        return "it is no Regulariser, and runs alone"
    pulls = [_pulls(subject.make, side) for side in (slice(0, 1), slice(1, 2), slice(0, 2))]
    for one, other, both in zip(*pulls, strict=True):
        subject.expect(
            torch.equal(torch.cat([one, other]), both),
            "the same pull on two runs stacked as on each alone",
            f"it differs by up to {float((torch.cat([one, other]) - both).abs().max()):.3g}",
        )
    return None


def _pulls(make: Callable[[], Any], runs: slice) -> list[Tensor]:
    """What a regulariser pulls with in the third experience, for the chosen ones of two runs side by side."""
    draws = torch.Generator().manual_seed(7)

    def values() -> list[Tensor]:
        return [torch.randn(2, *shape, generator=draws)[runs] for shape in ((3, 4), (4,), (2, 4))]

    def gradients(*_: Any, **__: Any) -> Sequence[Gradients]:
        return [[value[None] for value in values()] for _ in range(3)]

    regulariser: Regulariser = make().regulariser
    for _ in range(2):
        parameters = values()
        regulariser.begin(parameters)
        regulariser.before_step(parameters, values())
        parameters = values()
        regulariser.after_step(parameters, values())
        regulariser.end(parameters, gradients)
    regulariser.begin(parameters)
    return regulariser.pull(values())


CHECKS: dict[str, Check] = {
    "inert": check_inert,
    "acts": check_acts,
    "importance": check_importance,
    "learns": check_learns,
    "repeats": check_repeats,
    "resumes": check_resumes,
    "heads": check_heads,
    "memory": check_memory,
    "domains": check_domains,
    "precision": check_precision,
    "cuda": check_cuda,
    "stacks": check_stacks,
}
"""Every check by its short name, for a test with one case a check: ``CHECKS[name](Subject(strategy, options))``."""


def check_strategy(strategy: Strategy, **options: Any) -> dict[str, str]:
    """Run every check on a strategy.

    Args:
        strategy: a name, a dotted path, or a class or function that takes ``options``.
        options: its keys; small memories make for sharper checks.

    Returns:
        each check's name -> ``passed``, or why there was nothing to check.

    Raises:
        StrategyFault: the first check that fails; the message says what was expected and what happened.
        UserError: the strategy cannot be made.
    """
    subject = Subject(strategy, options)
    return {name: check(subject) or "passed" for name, check in CHECKS.items()}


def _has_importance(strategy: Any) -> bool:
    """Whether it gives an importance in our way; Avalanche's MAS has an attribute of that name."""
    return callable(getattr(strategy, "importance", None))


def _backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in weights.items() if name.startswith("backbone.")}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a.keys() & b.keys())


def _random_state() -> tuple[Any, ...]:
    """Python's, numpy's and torch's global generators, in a form that compares."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), np.asarray(keys).tolist(), rest, torch.get_rng_state().tolist()
