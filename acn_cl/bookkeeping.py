"""Keeping a run's folder true while it trains, alone or in a stack, and telling whoever watches."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from acn_cl.errors import UserError
from acn_cl.recipe import Planned
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from acn_cl.runs.environment import commit, versions
from acn_cl.runs.files import remove_parts
from acn_cl.runs.folder import RunFolder, read_status
from acn_cl.runs.schema import SCHEMA_VERSION, TABLES
from acn_cl.runs.weights import save_weights
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training.launch import launch
from acn_cl.training.network import Network
from acn_cl.training.session import Results
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.watch import Diverged
from acn_cl.training.world import backend_of


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Args:
        experiment: the experiment's id.
        seed: the run's seed.
        path: its folder.
        state: done, skipped (it was done before) or failed.
        error: why it failed, one line.
    """

    experiment: str
    seed: int
    path: Path
    state: str
    error: str | None = None


class Display(Protocol):
    """Who shows the progress of several runs."""

    def sent(self, folders: Sequence[Path], total: int) -> None:
        """A worker was given the runs in these folders, of ``total`` in all; what is known of them stands there."""

    def run_started(self, number: int, total: int, name: str, experiences: int, epochs: int) -> None:
        """Run ``number`` (from 1) of ``total`` begins, or a stack whose first run it is; ``name`` says which."""

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        """As :meth:`acn_cl.training.session.Watcher.epoch_done`."""

    def experience_done(self, experience: int, results: Results) -> None:
        """As :meth:`acn_cl.training.session.Watcher.experience_done`."""

    def run_ended(self, outcome: Outcome) -> None:
        """It is over, one way or another."""

    def note(self, text: str) -> None:
        """Something that whoever started the runs should know, one line."""


class Quiet:
    """Shows nothing."""

    def sent(self, folders: Sequence[Path], total: int) -> None:
        pass

    def run_started(self, number: int, total: int, name: str, experiences: int, epochs: int) -> None:
        pass

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        pass

    def experience_done(self, experience: int, results: Results) -> None:
        pass

    def run_ended(self, outcome: Outcome) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Unfailing:
    """Another display whose screen may be gone (a closed pipe, a lost terminal): no run is worth less for that."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def sent(self, folders: Sequence[Path], total: int) -> None:
        with suppress(OSError):
            self._display.sent(folders, total)

    def run_started(self, number: int, total: int, name: str, experiences: int, epochs: int) -> None:
        with suppress(OSError):
            self._display.run_started(number, total, name, experiences, epochs)

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        with suppress(OSError):
            self._display.epoch_done(experience, epoch, loss)

    def experience_done(self, experience: int, results: Results) -> None:
        with suppress(OSError):
            self._display.experience_done(experience, results)

    def run_ended(self, outcome: Outcome) -> None:
        with suppress(OSError):
            self._display.run_ended(outcome)

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._display.note(text)


class RunLike(Protocol):
    """What is kept of a run: a ``Session`` and a ``StackedRun`` both have it."""

    experiment: Experiment
    seed: int
    device: torch.device
    precision: str
    seeds: Seeds
    stream: Any
    streamed: bool
    compiled: bool

    @property
    def experiences(self) -> int:
        """How many will be trained."""


class Bookkeeper:
    """One run's folder, from :meth:`hold` to :meth:`release`, and its watcher in between.

    Args:
        planned: what the run is.
        seed: the run's seed.
        path: its folder.
        display: is told.
    """

    def __init__(self, planned: Planned, seed: int, path: Path, display: Display) -> None:
        self.planned, self.seed = planned, seed
        self.folder = RunFolder(path, planned.id, seed)
        self._display = display
        self._progress: dict[str, int] = {}
        self._behind = {"experience": 0, "epoch": 0}

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.planned.id} seed {self.seed}"

    def start(self) -> Checkpoint | None:
        """Where the run goes on, and a word about what was found there."""
        with suppress(UserError):
            self._progress = read_status(self.folder.path).progress
        checkpoint, complaints = load_checkpoint(self.folder.path)
        for complaint in complaints:
            self._display.note(complaint)
        if complaints and checkpoint is None:
            self._display.note(f"{self.name}: none of its checkpoints is whole, so it starts again")
        if checkpoint is not None:
            self._goes_on(checkpoint, "goes on from its checkpoint at")
        return checkpoint

    def goes_back(self, checkpoint: Checkpoint | None) -> None:
        """The stack that the run is in goes on from an earlier checkpoint, or from the beginning."""
        if checkpoint is not None:
            self._goes_on(checkpoint, "goes back with its stack to")
        else:
            self._behind = {"experience": 0, "epoch": 0}
            self._display.note(f"{self.name}: goes back with its stack to the beginning")

    def _goes_on(self, checkpoint: Checkpoint, how: str) -> None:
        self._behind = {"experience": checkpoint.experience, "epoch": checkpoint.epoch}
        at = f"experience {checkpoint.experience + 1}, epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}"
        self._display.note(f"{self.name}: {how} {at}")

    def begin(self, run: RunLike, network: Network, stack: int, going_on: bool) -> None:
        """Write ``spec.json``, and say if the run goes on under other circumstances than it began.

        Raises:
            UserError: it goes on with other images.
        """
        circumstances = {
            "device": _device_name(run.device),
            "precision": run.precision,
            "threads": torch.get_num_threads(),
            "stack": stack,
            "processes": launch().size,
        }
        if going_on:
            self._note_other_bits(circumstances)
            self._refuse_other_images(run.stream.data_checksum)
        self._spec: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "id": self.planned.id,
            "axes": self.planned.axes,
            "comparisons": [one.as_dict() for one in self.planned.comparisons],
            **({"search": dict(self.planned.search)} if self.planned.search else {}),
            "seed": self.seed,
            "experiment": self.planned.experiment.as_dict(),
            "pins": dict(run.seeds.pins),
            "class_order": [int(c) for c in run.stream.class_order],
            "data_checksum": run.stream.data_checksum,
            "parameters": sum(p.numel() for p in network.backbone.parameters()),
            "flops_by_depth": network.backbone.flops_by_depth(),
            **circumstances,
            "backend": backend_of(run.device) if launch().size > 1 else None,
            "images": "streamed" if run.streamed else "on the device",
            "versions": versions(),
            "commit": commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        epochs = self.planned.experiment.epochs
        self._progress = {"experience": 0, "experiences": run.experiences, "epoch": 0, "epochs": epochs} | self._behind
        self.folder.write_spec(self._spec)
        self.folder.write_status("running", self._progress)
        if run.device.type == "cuda":  # what an earlier run of this process took is not this one's
            torch.cuda.reset_peak_memory_stats(run.device)

    def _note_other_bits(self, here: dict[str, Any]) -> None:
        """The numbers of a run that goes on elsewhere are as good, and not the same to the last bit."""
        written = self.folder.written_spec() or {}
        for key, value in here.items():
            if written.get(key) not in (None, value):
                self._display.note(
                    f"{self.folder.path}: begun with {key} {written[key]}, goes on with {value}: "
                    "the last bits may differ"
                )

    def _refuse_other_images(self, here: str | None) -> None:
        """A run whose second half saw other data is no run."""
        begun = (self.folder.written_spec() or {}).get("data_checksum")
        if begun is not None and begun != here:
            raise UserError(
                f"{self.folder.path} was begun on other images (checksum {str(begun)[:12]}, here {str(here)[:12]}); "
                "go on where the data set is the same, or choose another --out"
            )

    # What the run tells while it trains.

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        self._progress |= {"experience": experience, "epoch": epoch + 1}
        self.folder.write_status("running", self._progress)
        self._display.epoch_done(experience, epoch, loss)

    def experience_done(self, experience: int, results: Results, tell: bool = True) -> None:
        self._progress |= {"experience": experience + 1, "epoch": 0}
        self._write_results(results)
        self.folder.write_status("running", self._progress)
        if tell:
            self._display.experience_done(experience, results)

    def save(self, checkpoint: Checkpoint) -> None:
        save_checkpoint(self.folder.path, checkpoint)

    def _write_results(self, results: Results) -> None:
        self.folder.write_results({name: getattr(results, name) for name in TABLES})

    # How it ends.

    def done(self, run: RunLike, results: Results, weights: dict[str, torch.Tensor]) -> Outcome:
        """The stream is learned."""
        self.folder.write_spec(self._spec | {"compiled": run.compiled, "peak_memory": _peak_memory(run.device)})
        self._write_results(results)  # all of them, even if the last ones were only in a checkpoint
        if self.planned.experiment.checkpoint.keep == "weights":
            save_weights(self.folder.path, run.experiences, weights)
        self.folder.write_status("done", self._progress | {"experience": run.experiences, "epoch": 0})
        remove_checkpoints(self.folder.path)
        return self.outcome("done")

    def skipped(self) -> Outcome:
        """The run was done before; what a kill in its last moment may have left is cleared away."""
        with suppress(OSError, UserError):
            remove_checkpoints(self.folder.path)
            remove_parts(self.folder.path)
        return self.outcome("skipped")

    def interrupted(self) -> None:
        """Somebody asked for a stop, and the run is saved."""
        reason = "interrupted; the same command goes on from its last checkpoint"
        with suppress(OSError):  # the wish to stop counts more; a status that still says running reads as "died"
            self.folder.write_status("failed", self._progress, reason)

    def failed(self, error: Exception) -> Outcome:
        """One run's end is not the others'. A fault of ours keeps its traceback in ``status.json``."""
        expected = isinstance(error, UserError | Diverged | OSError | MemoryError | torch.OutOfMemoryError)
        reason = str(error) if isinstance(error, UserError | Diverged) else f"{type(error).__name__}: {error}"
        line = " ".join(reason.split()) or type(error).__name__
        trace = None if expected else "".join(traceback.format_exception(error))
        try:
            self.folder.write_status("failed", self._progress, line, trace)
        except OSError as second:
            line += f" (and {self.folder.path} cannot be written: {second.strerror})"
        return self.outcome("failed", line)

    def outcome(self, state: str, error: str | None = None) -> Outcome:
        """How the run ended."""
        return Outcome(self.planned.id, self.seed, self.folder.path, state, error)


class OfStack:
    """One run's watcher in a stack: its fault is its own, and only the first that is left tells the display.

    Args:
        keeper: the run's.
        run: its ``failure`` is set when its folder can no longer be written.
        told: what the stack's watchers have told already, common to them.
    """

    def __init__(self, keeper: Bookkeeper, run: StackedRun, told: set[int]) -> None:
        self._keeper, self._run, self._told = keeper, run, told

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        with self._own_fault():
            self._keeper.epoch_done(experience, epoch, loss)

    def experience_done(self, experience: int, results: Results) -> None:
        with self._own_fault():
            self._keeper.experience_done(experience, results, tell=experience not in self._told)
            self._told.add(experience)

    def save(self, checkpoint: Checkpoint) -> None:
        with self._own_fault():
            self._keeper.save(checkpoint)

    @contextmanager
    def _own_fault(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._run.failure = error


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The runs that did not finish."""
    return [outcome for outcome in outcomes if outcome.state == "failed"]


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _peak_memory(device: torch.device) -> int | None:
    """Bytes: the most that was taken on a GPU since the run began; elsewhere by this process since that began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # there is no such count there
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
