"""One run's folder, kept by the first of several processes; the others do as it finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from acn_cl.bookkeeping import Bookkeeper, Display, Outcome
from acn_cl.executors.task import Job
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.runs.folder import RunFolder
from acn_cl.training.session import Results
from acn_cl.training.world import World, lost_another

T = TypeVar("T")
LOST = "another of the processes that train together has ended; what it said stands above"


class SharedFolder:
    """What processes ask a :class:`RunFolder` for. All of them have to ask alike."""

    def __init__(self, folder: RunFolder, world: World) -> None:
        self._folder, self._world = folder, world
        self.path: Path = folder.path

    def hold(self) -> None:
        self._world.on_first(self._folder.hold)

    def release(self) -> None:
        if self._world.first:
            self._folder.release()

    def is_done(self) -> bool:
        return self._world.on_first(self._folder.is_done)

    def written_spec(self) -> dict[str, Any] | None:
        return self._world.on_first(self._folder.written_spec)


class SharedBookkeeper:
    """A :class:`Bookkeeper` in every process, of which the first alone reads and writes.

    While a run goes on, the others wait for it and fail with it. Its end they do not wait for: it may be one process's
    end that ends the run.
    """

    def __init__(self, keeper: Bookkeeper, world: World) -> None:
        self._keeper, self._world = keeper, world
        self.planned, self.seed, self.name = keeper.planned, keeper.seed, keeper.name
        self.folder = SharedFolder(keeper.folder, world)

    def start(self) -> Checkpoint | None:
        return self._on_first(self._keeper.start)

    def begin(self, *args: Any) -> None:
        self._on_first(lambda: self._keeper.begin(*args))

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        self._on_first(lambda: self._keeper.epoch_done(experience, epoch, loss))

    def experience_done(self, experience: int, results: Results) -> None:
        self._on_first(lambda: self._keeper.experience_done(experience, results))

    def save(self, checkpoint: Checkpoint) -> None:
        self._on_first(lambda: self._keeper.save(checkpoint))

    def done(self, *args: Any) -> Outcome:
        return self._on_first(lambda: self._keeper.done(*args))

    def skipped(self) -> Outcome:
        return self._keeper.skipped() if self._world.first else self.outcome("skipped")

    def interrupted(self) -> None:
        if self._world.first:
            self._keeper.interrupted()

    def failed(self, error: Exception) -> Outcome:
        error = RuntimeError(LOST) if lost_another(error) else error
        return self._keeper.failed(error) if self._world.first else self.outcome("failed", str(error))

    def outcome(self, state: str, error: str | None = None) -> Outcome:
        return self._keeper.outcome(state, error)

    def _on_first(self, action: Callable[[], T]) -> T:
        return self._world.on_first(action)


Folder = RunFolder | SharedFolder
Keeper = Bookkeeper | SharedBookkeeper


def keeper_of(job: Job, display: Display, world: World) -> Keeper:
    """Who keeps a run's folder: this process, or the first of several."""
    own = Bookkeeper(job.planned, job.seed, job.path, display)
    return SharedBookkeeper(own, world) if world.shared else own
