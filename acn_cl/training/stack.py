"""A stack of runs, ready to train: as many :class:`acn_cl.training.session.Session` in one."""

import gc
from collections.abc import Callable, Sequence

import torch

from acn_cl.errors import UserError
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.runs.schema import TABLES
from acn_cl.training.device import determinism, fp32_products
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.per_run import PerRun, choose_per_run
from acn_cl.training.placement import fits, in_words
from acn_cl.training.session import Results, Watcher
from acn_cl.training.stack_data import pool_size
from acn_cl.training.stack_group import Job
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_training import AllDiverged, StackTraining

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


class StackSession:
    """Runs that train in lock-step as one batched model, each with its own random numbers.

    Spec and seed determine a run whatever its neighbours are, up to rounding. A run whose loss is no longer a number
    ends alone. Out of memory halves the stack: one half after the other goes on from the last checkpoints in memory,
    those of the last experience's end or later.

    Args:
        jobs: experiment and seed of each run; one stack in the sense of :func:`acn_cl.training.stack_group.group`.
        note: told in one line when images do not fit on the device, when the stack is halved, or when a step cannot
            be compiled.

    Raises:
        UserError: device, data, backbone or strategy cannot be had as the specs ask, or the runs' sizes differ.
    """

    def __init__(self, jobs: Sequence[Job], note: Callable[[str], None] = lambda line: None) -> None:
        self.runs = [StackedRun(experiment, seed) for experiment, seed in jobs]
        self._note = note
        if len({run.sizes for run in self.runs}) > 1:
            raise UserError("runs of one stack need as many images and classes in each experience as the others")
        size, device = pool_size(part for run in self.runs for part in run.parts), self.runs[0].device
        if not fits(size, device):
            note(in_words(size, device))
            for run in self.runs:
                run.streamed = True

    def train(
        self,
        watchers: Sequence[Watcher],
        stop: StopRequest | None = None,
        starts: Sequence[Checkpoint] | None = None,
        choose: Callable[[torch.device, str, int, Callable[[str], None]], PerRun] = choose_per_run,
    ) -> None:
        """Learn the streams. Each run's ``results``, then ``weights`` or ``failure``, are filled in.

        Args:
            watchers: one a run, told and given what a lone run's is.
            stop: looked at after every step.
            starts: a checkpoint a run, all of one position, saved by runs alone or in any stack.
            choose: how the runs are computed, from device, precision, number of runs and ``note``.

        Raises:
            Interrupted: ``stop`` asked for it; every run is saved.
        """
        last: dict[int, Checkpoint] = dict(enumerate(starts)) if starts else {}
        pending = [list(range(len(self.runs)))]
        experiment = self.runs[0].experiment
        with determinism(experiment.deterministic), fp32_products(experiment.tf32):
            while pending:
                numbers = [n for n in pending.pop(0) if self.runs[n].failure is None]
                try:
                    self._train(numbers, watchers, stop or StopRequest(), last, choose)
                except OUT_OF_MEMORY as error:
                    if len(numbers) == 1:
                        self.runs[numbers[0]].failure = error.with_traceback(None)
                        continue
                    middle = len(numbers) // 2
                    pending[:0] = [numbers[:middle], numbers[middle:]]
                    self._note(f"out of memory with {len(numbers)} runs at once; going on with {middle}")
                gc.collect()  # what the failed attempt held hangs in cycles of its traceback
                torch.cuda.empty_cache()

    def _train(
        self,
        numbers: Sequence[int],
        watchers: Sequence[Watcher],
        stop: StopRequest,
        last: dict[int, Checkpoint],
        choose: Callable[[torch.device, str, int, Callable[[str], None]], PerRun],
    ) -> None:
        """Train some of the runs together, from their last checkpoints if they have any."""
        runs = [self.runs[n] for n in numbers]
        starts = [last[n] for n in numbers] if numbers[0] in last else None
        for number, run in zip(numbers, runs, strict=True):
            tables = last[number].tables if number in last else {}
            run.results = Results(**{name: list(tables.get(name, [])) for name in TABLES})

        def remember(number: int, checkpoint: Checkpoint) -> None:
            last[numbers[number]] = checkpoint

        per_run = choose(runs[0].device, runs[0].precision, len(runs), self._note)
        training = StackTraining(runs, [watchers[n] for n in numbers], stop, per_run, remember)
        try:
            training.train(starts)
        except AllDiverged:
            return
        for number, run in enumerate(runs):
            run.compiled = per_run.compiler is not None and per_run.compiler.in_use
            if run.failure is None:
                run.weights = {k: v.cpu().contiguous() for k, v in training.network.of_run(number).items()}
