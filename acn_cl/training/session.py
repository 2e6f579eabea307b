"""One run from its spec: build the network, learn the stream, experience by experience, and measure."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger
from avalanche.training.plugins import EvaluationPlugin
from numpy.typing import NDArray
from torch import Tensor

from acn_cl.backbones.build import build_backbone
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.runs.schema import TABLES
from acn_cl.seeding import Seeds
from acn_cl.spec import EverySteps, Experiment
from acn_cl.tables import resolve
from acn_cl.training.batches import DeviceData
from acn_cl.training.device import choose_device, choose_precision, determinism, fp32_products
from acn_cl.training.evaluate import evaluate
from acn_cl.training.heads import Heads
from acn_cl.training.images import placed
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.layer_probe import Alone, LayerProbe
from acn_cl.training.learner import Learner
from acn_cl.training.network import Network
from acn_cl.training.placement import bytes_of, fits, in_words, parts_of
from acn_cl.training.randomness import own_random_state
from acn_cl.training.resume import Resume, Saving, can_resume, capture, restore
from acn_cl.training.stack_data import StackedPart
from acn_cl.training.watch import LayerWatch, StepEvaluation, importance_by_layer
from acn_cl.training.world import World

NETWORK, HEADS, GLOBAL, STRATEGY = 0, 1, 2, 3  # children of the initialisation stream


class Watcher(Protocol):
    """Who wants to know how far a run is."""

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        """An epoch is over; both count from 0; ``loss`` is its mean in nats."""

    def experience_done(self, experience: int, results: "Results") -> None:
        """An experience is learned and every experience so far is tested."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Here is what the run can go on from."""


@dataclass
class Results:
    """The rows of a run's tables so far; columns in :mod:`acn_cl.runs.schema`."""

    accuracy: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)

    def note_confusion(
        self, trained: int, evaluated: int, heads: Heads, answers: NDArray[np.int64] | Sequence[float]
    ) -> None:
        """Add which experiences the answers belong to, where all experiences share one growing output.

        Args:
            trained: the last experience learned.
            evaluated: the one tested.
            heads: of class-incremental networks; others have no confusion between experiences.
            answers: how often each class was answered, by label.
        """
        if heads.scenario == "class-incremental":
            for predicted, units in enumerate(heads.units[: len(heads.blocks)]):
                if count := int(sum(answers[label] for label in units)):
                    row = {"trained": trained, "evaluated": evaluated, "predicted": predicted, "count": count}
                    self.confusion.append(row)


class Session:
    """A run that is ready to train.

    Args:
        experiment: what to run.
        seed: the run's seed.
        folder: where loggers write.
        note: told in one line if the images do not fit on the device.
        world: the processes that train the run together.

    Raises:
        UserError: device, data, backbone or strategy cannot be had as the spec asks.
    """

    def __init__(
        self, experiment: Experiment, seed: int, folder: Path, note: Callable[[str], None] = lambda line: None,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.experiment, self.seed, self.world = experiment, seed, world or World()
        self.device = choose_device(experiment.device)
        self.precision = choose_precision(experiment.precision, self.device)
        self.seeds = experiment.seeds_of(seed)
        self.stream = build_stream(experiment, self.seeds)
        self.network = build_network(experiment, self.seeds, self.stream).to(self.device)
        self.strategy = build_own_strategy(experiment, self.seeds)
        self.results = Results()
        self._spent = 0.0  # seconds of the experience at hand that an earlier process has spent
        self._folder = folder
        self._transform = resolve("acn_cl.benchmarks.streams.transforms:BatchTransform")(
            self.stream.info, augment=self.stream.augment, device=self.device
        )
        size = bytes_of(parts_of(self.stream, self.experiences))
        self.streamed = not fits(size, self.device)
        self.compiled = False  # no step of Avalanche's call-backs ever is
        if self.streamed:
            note(in_words(size, self.device))
        self._tests = [self._placed(e.test) for e in self.stream.experiences]
        self._validations = [self._placed(e.validation) if e.validation else None for e in self.stream.experiences]
        self._probe = LayerProbe(Alone(self.network), _as_stack(self._tests[0]), self._transform)

    @property
    def experiences(self) -> int:
        """How many experiences will be trained."""
        return self.experiment.stream.stop_after or len(self.stream.experiences)

    def _placed(self, part: Any) -> DeviceData:
        return DeviceData.of(part, self.device, self.streamed)

    def train(self, watcher: Watcher, stop: StopRequest | None = None, start: Checkpoint | None = None) -> None:
        """Learn the stream. ``results`` fills as it goes; global random state is put back at the end.

        Args:
            watcher: told of epochs and experiences, and given the checkpoints.
            stop: looked at after every step.
            start: where to go on from.

        Raises:
            Diverged: the loss or the gradient is no longer a number.
            Interrupted: ``stop`` asked for it; what could be saved is.
        """
        experiment, seed = self.experiment, self.seeds.integer("initialisation", GLOBAL)
        with own_random_state(seed), determinism(experiment.deterministic), fp32_products(experiment.tf32):
            self._train(watcher, stop or StopRequest(), start)

    def _train(self, watcher: Watcher, stop: StopRequest, start: Checkpoint | None) -> None:
        learner = self._learner(watcher)
        benchmark = self.stream.benchmark()
        every = self.experiment.checkpoint.every_seconds
        saving = Saving(every, lambda at: self._save(learner, watcher, at), stop, self.world)
        learner.plugins.append(saving)
        if start is None:
            self._evaluate(-1, -1)
        else:
            self._go_on(learner, start)
        for index in range(start.experience if start else 0, self.experiences):
            stop.check()
            self._learn(learner, benchmark.train_stream[index], index)
            self._evaluate(index, -1)
            self._note_importance(index)
            self._probe_layers(index)
            if index == self.experiences - 1:
                self._evaluate_corrupted(index)
            self._save(learner, watcher, (index + 1, 0, 0))
            saving.saved()
            watcher.experience_done(index, self.results)

    def _learn(self, learner: Learner, experience: Any, index: int) -> None:
        self._began = time.perf_counter() - self._spent
        learner.train(experience, eval_streams=[])
        self._note_time(index, "train", time.perf_counter() - self._began, learner.images_trained)
        self._spent = 0.0

    def _save(self, learner: Learner, watcher: Watcher, position: tuple[int, int, int]) -> None:
        if not can_resume(self.strategy):
            return
        started = time.perf_counter()
        between = position[1:] == (0, 0)
        checkpoint = capture(learner, self.strategy, self._watch, position)
        checkpoint.tensors |= self._probe.state(0)
        checkpoint.plain["spent"] = 0.0 if between else started - self._began
        checkpoint.tables = {name: list(getattr(self.results, name)) for name in TABLES}
        watcher.save(checkpoint)
        self._note_time(position[0] - between, "save", time.perf_counter() - started, 0)

    def _go_on(self, learner: Learner, start: Checkpoint) -> None:
        self.results = Results(**start.tables)
        self._spent = start.plain["spent"]
        self._probe.load([start.tensors])
        restore(learner, self.strategy, start)
        if (start.epoch, start.batch) != (0, 0):
            learner.resume = Resume(start, self.strategy, self._watch)

    def _learner(self, watcher: Watcher) -> Learner:
        def on_epoch(experience: int, epoch: int, loss: float, norms: list[float]) -> None:
            self._note_layers(experience, epoch, "gradient_norm", norms)
            watcher.epoch_done(experience, epoch, loss)

        self._watch = LayerWatch(on_epoch)
        plugins = [self._watch, self.strategy]
        every = self.experiment.evaluate_every
        if isinstance(every, EverySteps):
            plugins.append(StepEvaluation(every.steps, lambda experience, step: self._evaluate(experience - 1, step)))
        self._data = [self._placed(e.train) for e in self.stream.experiences[: self.experiences]]
        return Learner(
            experiment=self.experiment,
            network=self.network,
            data=self._data,
            transform=self._transform,
            task_label=self.stream.task_label,
            seeds=self.seeds,
            device=self.device,
            precision=self.precision,
            plugins=plugins,
            evaluator=_evaluation_plugin(self.experiment.loggers, self._folder, self.world),
            world=self.world,
        )

    def _evaluate(self, trained: int, step: int) -> None:
        """Test every experience that the network can answer."""
        able = [index for index in range(len(self._tests)) if self.network.heads.can_answer(index)]
        if not able:
            return
        started = time.perf_counter()
        for index in able:
            if self.experiment.test_part:
                self._score(trained, step, index, "test", self._tests[index])
            if (held_out := self._validations[index]) is not None:
                self._score(trained, step, index, "validation", held_out)
        samples = sum(len(self._tests[index]) for index in able)
        self._note_time(trained, "evaluate", time.perf_counter() - started, samples)

    def _evaluate_corrupted(self, trained: int) -> None:
        """Test what was learned under each of the spec's kinds of noise, one part in memory at a time."""
        for name in self.experiment.corruptions:
            corruption = resolve("acn_cl.benchmarks.streams.corruptions:corruption")(name)
            for index, clean in enumerate(self._tests):
                if self.network.heads.can_answer(index):
                    noisy = corruption.of(self.stream.experiences[index].test)
                    images = placed(noisy, self.device, self.streamed)
                    self._score(trained, -1, index, "test", DeviceData(images, clean.labels), corruption.name)

    def _score(
        self, trained: int, step: int, index: int, part: str, data: DeviceData, condition: str = "clean"
    ) -> None:
        scores = evaluate(self.network, data, self._transform, index, self.precision, self.world)
        if (step, part, condition) == (-1, "test", "clean"):
            self.results.note_confusion(trained, index, self.network.heads, scores.answers)
        for depth, (accuracy, loss) in enumerate(zip(scores.accuracy, scores.loss, strict=True)):
            self.results.accuracy.append(
                {
                    "trained": trained,
                    "step": step,
                    "evaluated": index,
                    "part": part,
                    "condition": condition,
                    "depth": depth,
                    "accuracy": float(accuracy),
                    "loss": float(loss),
                    "samples": scores.samples,
                }
            )

    def _note_layers(self, experience: int, epoch: int, quantity: str, values: list[float]) -> None:
        for layer, value in enumerate(values):
            self.results.layers.append(
                {"trained": experience, "epoch": epoch, "layer": layer, "quantity": quantity, "value": value}
            )

    def _probe_layers(self, experience: int) -> None:
        if not self.experiment.test_part:
            return  # it looks at test images
        if not self.network.heads.can_answer(experience):
            return  # the strategy trains another network, as Avalanche's GDumb does
        started = time.perf_counter()
        train, task = self._data[experience], self.stream.task_label(experience)
        for quantity, (values,) in self._probe.after(experience, _as_stack(train), task).items():
            self._note_layers(experience, -1, quantity, values)
        self._note_time(experience, "probe", time.perf_counter() - started, 0)

    def _note_importance(self, experience: int) -> None:
        of_weights = getattr(self.strategy, "importance", None)
        if not callable(of_weights):  # Avalanche's MAS has a dictionary of that name, in a form of its own
            return
        importance: dict[str, Tensor] = of_weights()
        if importance:
            totals, smallest = importance_by_layer(self.network, importance)
            self._note_layers(experience, -1, "importance", totals)
            self._note_layers(experience, -1, "importance_smallest", [smallest])

    def _note_time(self, trained: int, phase: str, seconds: float, samples: int) -> None:
        self.results.timing.append({"trained": trained, "phase": phase, "seconds": seconds, "samples": samples})


def build_stream(experiment: Experiment, seeds: Seeds) -> Any:
    """The stream of one run; its class order is drawn from ``seeds``."""
    build = resolve("acn_cl.benchmarks.streams.build:build_stream")
    return build(experiment.stream.name, seeds=seeds, **experiment.stream.options())


def build_strategy(experiment: Experiment) -> Any:
    """The strategy's plug-in."""
    build = resolve("acn_cl.strategies.build:build_strategy")
    return build(experiment.strategy.name, **experiment.strategy.options())


def build_own_strategy(experiment: Experiment, seeds: Seeds) -> Any:
    """The strategy's plug-in for one run: what its constructor draws is the run's own, too."""
    with own_random_state(seeds.integer("initialisation", STRATEGY)):
        return build_strategy(experiment)


def build_network(experiment: Experiment, seeds: Seeds, stream: Any) -> Network:
    """Backbone and heads on the CPU, initialised from the run's own generators."""
    channels, height, width = stream.info.image_shape
    with own_random_state(seeds.integer("initialisation", NETWORK)):
        backbone = build_backbone(
            experiment.backbone.name, image_size=(height, width), channels=channels, **experiment.backbone.options()
        )
    heads = Heads(
        backbone.feature_size,
        [sorted({*e.train.labels.tolist(), *e.test.labels.tolist()}) for e in stream.experiences],
        stream.scenario,
        common_labels=stream.labels != "per-experience",
        random_state=lambda index: own_random_state(seeds.integer("initialisation", HEADS, index)),
    )
    return Network(backbone, heads)


def _as_stack(data: DeviceData) -> StackedPart:
    return StackedPart(data.images, torch.arange(len(data))[None], data.labels[None])


def _evaluation_plugin(names: tuple[str, ...], folder: Path, world: World) -> EvaluationPlugin:
    loggers: list[BaseLogger] = []
    if "tensorboard" in names:
        loggers.append(TensorboardLogger(str(folder / "tensorboard")))
    if "wandb" in names:
        loggers.append(WandBLogger(project_name="acn-cl", run_name="-".join(folder.parts[-2:]), dir=str(folder)))
    metrics = [accuracy_metrics(epoch=True), loss_metrics(epoch=True)] if loggers else []
    if not loggers and world.first:
        loggers = [BaseLogger()]  # which logs nothing; none at all would warn, but in other processes is a must
    return EvaluationPlugin(*metrics, loggers=loggers)
