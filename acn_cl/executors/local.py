"""One task after the other, in this process."""

from collections.abc import Iterator, Sequence

from acn_cl.bookkeeping import Display
from acn_cl.executors.perform import perform
from acn_cl.executors.task import Ended, Task, check_processes
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.world import World


class Local:
    """The executor that needs nothing.

    Args:
        world: the processes that train each task together; ``None``: this one alone.
    """

    def __init__(self, world: World | None = None) -> None:
        self._world = world or World()

    def run(self, tasks: Sequence[Task], display: Display, stop: StopRequest) -> Iterator[Ended]:
        """As :meth:`acn_cl.executors.task.Executor.run`."""
        check_processes(tasks, self._world.size)
        for task in tasks:
            stop.check()
            yield Ended(perform(task, display, stop, self._world))
