"""Learning a stream with a stack: experience after experience, tested in between, saved as it goes."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from acn_cl.depth.probing import split_scores
from acn_cl.runs.checkpoint import Checkpoint, Position
from acn_cl.runs.schema import TABLES
from acn_cl.spec import EverySteps
from acn_cl.tables import resolve
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.layer_probe import LayerProbe, Stacked
from acn_cl.training.lean import Events, StackLearner
from acn_cl.training.memory import keep_freed_memory
from acn_cl.training.per_run import PerRun
from acn_cl.training.session import GLOBAL, Watcher
from acn_cl.training.stack_checkpoint import StackState
from acn_cl.training.stack_data import ImagePool, StackedPart, own_images
from acn_cl.training.stack_network import StackedNetwork
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_strategy import StackStrategy
from acn_cl.training.stack_watch import StackWatch
from acn_cl.training.watch import layer_of_parameters, problem_of

EVALUATION_BATCH = 500  # images a run at once


class StackTraining:
    """Trains some runs together; everything that is large lives in here.

    Args:
        runs: of equal sizes.
        watchers: one a run.
        stop: looked at after every step.
        per_run: chosen from the number of runs.
        last: told of every checkpoint, whether anybody writes it or not.
    """

    def __init__(
        self,
        runs: Sequence[StackedRun],
        watchers: Sequence[Watcher],
        stop: StopRequest,
        per_run: PerRun,
        last: Callable[[int, Checkpoint], None],
    ) -> None:
        self._runs, self._watchers, self._stop, self._per_run, self._last = runs, watchers, stop, per_run, last
        first = runs[0]
        experiment, device = first.experiment, first.device
        self._every = experiment.checkpoint.every_seconds
        self._steps = experiment.evaluate_every.steps if isinstance(experiment.evaluate_every, EverySteps) else None
        self._transform = resolve("acn_cl.benchmarks.streams.transforms:BatchTransform")(
            first.stream.info, augment=first.stream.augment, device=device
        )
        self._saved = time.monotonic()
        if device.type == "cpu":
            keep_freed_memory()
        self._load(device)
        networks = [run.build_network() for run in runs]
        self.network = StackedNetwork(networks, device, first.precision, experiment.loss.label_smoothing)
        self._strategy = StackStrategy([run.build_strategy() for run in runs], device)
        self._probe = LayerProbe(Stacked(self.network, per_run), self._tests[0], self._transform)
        self._watch = StackWatch(self.network.template, len(runs), device)
        self._learner = StackLearner(
            experiment=experiment,
            network=self.network,
            strategy=self._strategy,
            per_run=per_run,
            data=self._data,
            transform=self._transform,
            task_label=first.stream.task_label,
            seeds=[run.seeds for run in runs],
            watch=self._watch,
        )
        random_seeds = [run.seeds.integer("initialisation", GLOBAL) for run in runs]
        self._state = StackState(self._learner, self.network, self._strategy, self._watch, random_seeds)

    def _load(self, device: torch.device) -> None:
        trained = self._runs[0].experiences
        pool = ImagePool([part for run in self._runs for part in run.parts], device, self._runs[0].streamed)
        by_experience = list(zip(*(run.stream.experiences for run in self._runs), strict=True))
        self._data = [pool.stack([e.train for e in same]) for same in by_experience[:trained]]
        self._tests = [pool.stack([e.test for e in same]) for same in by_experience]
        held_out = [same if same[0].validation else None for same in by_experience]
        self._validations = [pool.stack([e.validation for e in same]) if same else None for same in held_out]

    def train(self, starts: Sequence[Checkpoint] | None) -> None:
        """Learn the stream, from checkpoints of one position if there are any.

        Raises:
            Interrupted: the stop was asked for; every run is saved.
        """
        start = (0, 0, 0)
        if starts is None:
            self._evaluate(-1, -1)
        else:
            start = (starts[0].experience, starts[0].epoch, starts[0].batch)
            self._state.restore(starts)
            self._probe.load([start.tensors for start in starts])
        for index in range(start[0], self._runs[0].experiences):
            self._stop.check()
            self.learn(index, starts if index == start[0] and start[1:] != (0, 0) else None)
            self._evaluate(index, -1)
            self._note_importance(index)
            self._probe_layers(index)
            if index == self._runs[0].experiences - 1:
                self._evaluate_corrupted(index)
            self._save((index + 1, 0, 0))
            for run, watcher in self._alive():
                watcher.experience_done(index, run.results)

    def _alive(self) -> Iterator[tuple[StackedRun, Watcher]]:
        """Runs whose numbers are still numbers. The others stay in the stack as ballast, which costs no code."""
        return ((r, w) for r, w in zip(self._runs, self._watchers, strict=True) if r.failure is None)

    def learn(self, index: int, middle: Sequence[Checkpoint] | None = None) -> None:
        """One experience, from its middle if there are checkpoints of it."""
        self._learner.begin(index)
        first = (0, 0)
        if middle is not None:
            first = (middle[0].epoch, middle[0].batch)
            self._state.restore(middle)
            if first[1]:
                self._state.restore_sums(middle)
        self._began = time.perf_counter() - (middle[0].plain["spent"] * len(self._runs) if middle else 0.0)
        self._learner.learn(index, Events(self._epoch_over, self._step_over), first)
        self._note_time(index, "train", self._began, len(self._data[index]) * self._learner.epochs)

    def _step_over(self, position: Position, steps: int) -> None:
        if self._steps is not None and steps % self._steps == 0:
            self._evaluate(position[0] - 1, steps)
        if self._stop.signal is not None:
            self._save(position)
            self._stop.check()

    def _epoch_over(self, position: Position, means: list[list[float]]) -> None:
        experience, epoch = position[0], position[1] - 1
        for run, watcher, (loss, *norms) in zip(self._runs, self._watchers, means, strict=True):
            if run.failure is not None:
                continue
            run.failure = problem_of(loss, norms, experience, epoch)
            if run.failure is None:
                run.note_layers(experience, epoch, "gradient_norm", norms)
                watcher.epoch_done(experience, epoch, loss)
        if not any(True for _ in self._alive()):
            raise AllDiverged
        last = position[1] == self._learner.epochs  # the end of the experience is saved when it is tested
        if time.monotonic() - self._saved >= self._every and not last:
            self._save(position)

    def _save(self, position: Position) -> None:
        started = time.perf_counter()
        share = 0.0 if position[1:] == (0, 0) else (started - self._began) / len(self._runs)
        for number, (run, watcher) in enumerate(zip(self._runs, self._watchers, strict=True)):
            if run.failure is not None:
                continue
            checkpoint = self._state.capture(number, position)
            checkpoint.tensors |= self._probe.state(number)
            checkpoint.plain["spent"] = share
            checkpoint.tables = {name: list(getattr(run.results, name)) for name in TABLES}
            self._last(number, checkpoint)
            watcher.save(checkpoint)
        self._note_time(position[0], "save", started, 0)
        self._saved = time.monotonic()

    # Tests.

    def _evaluate(self, trained: int, step: int) -> None:
        """Test every experience that the networks can answer; one transfer for all numbers."""
        able = [i for i in range(len(self._tests)) if self.network.template.heads.can_answer(i)]
        started = time.perf_counter()
        parts = [(i, name, part) for i in able for name, part in self._parts(i)]
        if not parts:
            return
        sums = [self._score(index, part) for index, _, part in parts]
        together = torch.cat(sums, 1).cpu()
        for (index, name, part), scores in zip(
            parts, torch.split(together, [s.shape[1] for s in sums], 1), strict=True
        ):
            self._note_scores(trained, step, index, name, "clean", scores, len(part))
        self._note_time(trained, "evaluate", started, sum(len(self._tests[i]) for i in able))

    def _parts(self, index: int) -> Iterator[tuple[str, StackedPart]]:
        if self._runs[0].experiment.test_part:
            yield "test", self._tests[index]
        if (held_out := self._validations[index]) is not None:
            yield "validation", held_out

    def _score(self, index: int, part: StackedPart) -> Tensor:
        """Sums of right answers, losses and answers by class, (R, …) as ``acn_cl.depth.probing.scores`` has them."""
        aliases, called = self.network.answering(index)
        parameters = {alias: self.network.parameters[name] for alias, name in aliases.items()}
        scores = partial(self.network.scores, index=called)
        batches = part.plain_batches(self._transform, EVALUATION_BATCH)
        found = [self._per_run.values(scores, parameters, images, labels) for images, labels in batches]
        return torch.stack(found).sum(0)

    def _evaluate_corrupted(self, trained: int) -> None:
        """Test what was learned under each of the spec's kinds of noise, one part in memory at a time."""
        for name in self._runs[0].experiment.corruptions:
            corruption = resolve("acn_cl.benchmarks.streams.corruptions:corruption")(name)
            for index, clean in enumerate(self._tests):
                if self.network.template.heads.can_answer(index):
                    noisy = [corruption.of(run.stream.experiences[index].test) for run in self._runs]
                    part = own_images(noisy, clean.labels, self._runs[0].streamed)
                    scores = self._score(index, part).cpu()
                    self._note_scores(trained, -1, index, "test", corruption.name, scores, len(clean))

    # Rows.

    def _note_scores(
        self, trained: int, step: int, index: int, part: str, condition: str, scores: Tensor, samples: int
    ) -> None:
        heads = self.network.template.heads
        right, losses, answers = split_scores(scores, self.network.template.backbone.depth)
        means = zip((right / samples).tolist(), (losses / samples).tolist(), answers.tolist(), strict=True)
        for run, (accuracy, loss, answered) in zip(self._runs, means, strict=True):
            if run.failure is not None:
                continue
            run.note_scores(trained, step, index, part, condition, accuracy, loss, samples)
            if (step, part, condition) == (-1, "test", "clean"):
                run.results.note_confusion(trained, index, heads, answered)

    def _note_importance(self, experience: int) -> None:
        """Sum of the regulariser's importance at each layer, and its smallest single value, of every run."""
        importance = self._strategy.importance()
        if not importance:
            return
        layers = layer_of_parameters(self.network.template)
        totals = torch.zeros(len(self._runs), self.network.template.backbone.depth + 2, dtype=torch.float64)
        sums = torch.stack([v.flatten(1).sum(1, dtype=torch.float64) for v in importance.values()], 1).cpu()
        totals.index_add_(1, torch.tensor([layers[name] for name in importance]), sums)
        smallest = torch.stack([v.flatten(1).amin(1) for v in importance.values()]).amin(0).tolist()
        for run, total, least in zip(self._runs, totals.tolist(), smallest, strict=True):
            if run.failure is None:
                run.note_layers(experience, -1, "importance", total)
                run.note_layers(experience, -1, "importance_smallest", [least])

    def _probe_layers(self, experience: int) -> None:
        if not self._runs[0].experiment.test_part:
            return  # it looks at test images
        started = time.perf_counter()
        task = self._runs[0].stream.task_label(experience)
        for quantity, by_run in self._probe.after(experience, self._data[experience], task).items():
            for run, values in zip(self._runs, by_run, strict=True):
                if run.failure is None:
                    run.note_layers(experience, -1, quantity, values)
        self._note_time(experience, "probe", started, 0)

    def _note_time(self, trained: int, phase: str, started: float, samples: int) -> None:
        """A run's time is its share of the stack's."""
        seconds = (time.perf_counter() - started) / len(self._runs)
        for run, _ in self._alive():
            run.results.timing.append({"trained": trained, "phase": phase, "seconds": seconds, "samples": samples})


class AllDiverged(Exception):
    """No run of the stack is left."""
