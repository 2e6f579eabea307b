"""What is handed to an executor, and what comes back: plain data that travels between processes and machines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acn_cl.bookkeeping import Display, Outcome
from acn_cl.errors import SpecError
from acn_cl.recipe import Planned
from acn_cl.training.interrupt import StopRequest


@dataclass(frozen=True)
class Job:
    """One run: an experiment, a seed, and the folder that it is kept in (absolute)."""

    planned: Planned
    seed: int
    path: Path

    def failed(self, why: str) -> Outcome:
        """The outcome of a run that could not be trained; nothing is written."""
        return Outcome(self.planned.id, self.seed, self.path, "failed", why)


@dataclass(frozen=True)
class Task:
    """Runs that train together, as one stack or one alone, on one device.

    Args:
        jobs: the runs.
        place: number of the first run among all (from 1), and how many there are: for people.
        threads: torch's threads; pinned, since the last bits of a result depend on it.
        cpus: cores that it takes up, fractions allowed.
        gpus: GPUs that it takes up, fractions allowed; 0: it does not see any.
        processes: that train it together; threads, cpus and gpus are each one's.
    """

    jobs: tuple[Job, ...]
    place: tuple[int, int]
    threads: int
    cpus: float
    gpus: float
    processes: int = 1

    @property
    def name(self) -> str:
        """For people."""
        first = f"{self.jobs[0].planned.id} seed {self.jobs[0].seed}"
        return first + (f" and {len(self.jobs) - 1} more" if len(self.jobs) > 1 else "")


@dataclass(frozen=True)
class Ended:
    """All runs of a task have an outcome. ``notes``: what a worker had to say of them, a line each."""

    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """A task was asked to stop, and what it has is saved."""


@dataclass(frozen=True)
class Died:
    """Whoever worked on a task is gone: killed, out of memory, or its machine is. ``why``: one line."""

    why: str


End = Ended | Stopped | Died


def check_processes(tasks: Sequence[Task], here: int = 1) -> None:
    """For executors that do not start several processes for a run.

    Args:
        tasks: the tasks.
        here: how many train every run together anyway.

    Raises:
        SpecError: a task wants several, and not these.
    """
    for wanted in (task.processes for task in tasks):
        if wanted not in (1, here):
            how = f"--executor ray, or under torchrun --nproc-per-node {wanted}"
            raise SpecError(("resources", "processes"), f"{wanted} processes train a run together with {how}")


class Executor(Protocol):
    """Somebody who trains tasks."""

    def run(self, tasks: Sequence[Task], display: Display, stop: StopRequest) -> Iterator[Ended]:
        """Train the tasks and give each one's outcomes as it ends, in whatever order that is.

        Raises:
            UserError: the tasks cannot be trained as they ask to be; nothing has begun.
            Interrupted: ``stop`` asked for it; what was being trained is saved.
        """
