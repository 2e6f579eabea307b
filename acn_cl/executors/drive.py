"""Keeping a pool of workers busy: what executors with workers of their own have in common."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from acn_cl.bookkeeping import Display
from acn_cl.executors.task import Died, End, Ended, Stopped, Task
from acn_cl.training.interrupt import Interrupted, StopRequest

RETRIES = 3
"""How often a task is given to another worker when the one that had it is gone."""
POLL = 0.25
"""Seconds between two looks at whether somebody asked to stop."""


class Pool(Protocol):
    """Workers, somewhere."""

    @property
    def most(self) -> int:
        """Tasks that the pool takes at once."""

    def send(self, task: Task) -> None:
        """Have a task trained. Never more than :attr:`most` are there at a time."""

    def wait(self, seconds: float) -> list[tuple[Task, End]]:
        """The tasks that have ended since the last call; waits so long for the first of them at most."""

    def stop(self) -> None:
        """Ask every worker to finish its step, save, and end its task."""


def drive(pool: Pool, tasks: Sequence[Task], display: Display, stop: StopRequest) -> Iterator[Ended]:
    """Send the tasks to the pool, few at a time, and give back each one's end; one whose worker died goes on elsewhere.

    Raises:
        Interrupted: ``stop`` asked for it, and every task that was being trained has ended.
    """
    waiting, at_work, deaths = deque(tasks), 0, Counter[int]()
    asked = False
    while at_work or (waiting and not asked):
        if stop.signal is not None and not asked:
            asked = True
            pool.stop()
        while waiting and at_work < pool.most and stop.signal is None:
            task = waiting.popleft()
            pool.send(task)
            display.sent([job.path for job in task.jobs], task.place[1])
            at_work += 1
        for task, end in pool.wait(POLL):
            at_work -= 1
            match end:
                case Ended():
                    for line in end.notes:
                        display.note(line)
                    yield end
                case Died() if not asked and deaths[task.place[0]] == RETRIES:
                    why = f"its worker died {RETRIES + 1} times; the last time: {end.why}"
                    yield Ended(tuple(job.failed(why) for job in task.jobs))
                case Died() if not asked:
                    deaths[task.place[0]] += 1
                    display.note(f"{task.name}: {end.why}; it goes on elsewhere")
                    waiting.appendleft(task)
                case Died() | Stopped():
                    waiting.appendleft(task)
    if waiting:
        assert stop.signal is not None
        raise Interrupted(stop.signal)
