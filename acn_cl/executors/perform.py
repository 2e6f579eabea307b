"""The work itself, the same wherever it is done: one task's runs into their folders."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acn_cl.bookkeeping import Display, Outcome, Quiet
from acn_cl.executors.task import End, Ended, Stopped, Task
from acn_cl.together import keeper_of
from acn_cl.trainer import run_stack
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.randomness import own_random_state
from acn_cl.training.world import World


def perform(task: Task, display: Display, stop: StopRequest, world: World | None = None) -> tuple[Outcome, ...]:
    """Train a task's runs in this process, or in those of ``world`` together; one outcome each, in order.

    Raises:
        Interrupted: ``stop`` asked for it; the runs are saved.
    """
    world = world or World()
    keepers = [keeper_of(job, display, world) for job in task.jobs]
    with own_random_state(0), _threads(task.threads):  # the same for everybody's own code wherever it is trained
        return tuple(run_stack(keepers, display, stop, task.place, world))


class Notes(Quiet):
    """Keeps what a run has to say for whoever started it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def performed(task: Task, notes: Notes, stop: StopRequest, world: World | None = None) -> End:
    """:func:`perform`, a stop that was asked for being an end like any other."""
    try:
        return Ended(perform(task, notes, stop, world), tuple(notes.lines))
    except Interrupted:
        return Stopped()


def end_of(task: Task, stop: StopRequest) -> End:
    """:func:`perform` for a worker whose driver is elsewhere: whatever happens is said, and nothing is raised."""
    notes = Notes()
    try:
        return performed(task, notes, stop)
    except Exception as error:  # a fault of ours ends this task, and the worker takes the next
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Ended(tuple(job.failed(line) for job in task.jobs), tuple(notes.lines))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
