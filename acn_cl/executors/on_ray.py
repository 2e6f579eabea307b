"""A Ray cluster: one of this machine alone, or one that was started before."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from acn_cl.bookkeeping import Display
from acn_cl.errors import SpecError, UserError
from acn_cl.executors.drive import drive
from acn_cl.executors.processes import check_devices
from acn_cl.executors.ray_task import Surroundings, train
from acn_cl.executors.task import Died, End, Ended, Stopped, Task
from acn_cl.tables import resolve
from acn_cl.training.interrupt import StopRequest

AHEAD = 2
"""Tasks that are sent for each one that the cluster has room for, so that no worker waits for the driver."""
OBJECT_STORE = 100 << 20  # bytes; specs and outcomes are all that travels
SLACK = 1e-6  # Ray counts resources in units of 1e-4


class OnRay:
    """Trains the tasks on a Ray cluster whose nodes all see the runs' folder.

    Args:
        workers: tasks that are sent at a time; ``None``: from what the cluster has, which may grow.
        address: ``auto`` or ``host:port`` of a cluster; ``None``: one of this machine alone, for as long as it takes.

    Raises:
        UserError: Ray is not installed, or fewer than one worker is asked for.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: at least 1 is wanted")
        self._ray, self._workers, self._address = _import_ray(), workers, address

    def run(self, tasks: Sequence[Task], display: Display, stop: StopRequest) -> Iterator[Ended]:
        """As :meth:`acn_cl.executors.task.Executor.run`."""
        check_devices(tasks)
        most = Most.of(tasks)
        with _connected(self._ray, self._address):
            if (problem := lack(self._ray, most)) is not None:
                if self._address is None:
                    raise SpecError(("resources",), f"{problem}; ask for less")
                display.note(f"{problem}; waiting for one that has (resources.cpus and resources.gpus say how much)")
            yield from drive(RayPool(self._ray, most, self._workers), tasks, display, stop)


@dataclass(frozen=True)
class Most:
    """The most that one of several tasks takes up: each process's ``cpus`` and ``gpus``, and how many processes."""

    cpus: float
    gpus: float
    processes: int

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Self:
        """Over all tasks."""
        return cls(*(max(getattr(task, key) for task in tasks) for key in ("cpus", "gpus", "processes")))

    def room(self, found: Mapping[str, float]) -> int:
        """How many processes find what they want in Ray's resources."""
        rooms = [found.get(kind, 0) / each + SLACK for kind, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each]
        return int(min(rooms))


def _import_ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("executor ray needs the package ray: pip install 'acn-cl[ray]'") from None
    return ray


def check_reachable(address: str) -> None:
    """Find out whether anybody listens there; Ray itself ends the whole process when nobody does.

    Raises:
        UserError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return  # auto, and addresses of a Ray client, are Ray's to look up
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster at {address}: {error.strerror or error}") from None


@contextmanager
def _connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    """A connection to a cluster; one that is there already is used, and left as it is.

    Raises:
        UserError: there is no cluster, or it cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    if address is not None:
        check_reachable(address)
    ours = {"include_dashboard": False, "object_store_memory": OBJECT_STORE} if address is None else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it without having been asked
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **ours)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
    try:
        for number in numbers:  # Ray's own would end the process before the runs are saved
            signal.signal(number, handlers[number])
        yield
    finally:
        ray.shutdown()


def lack(ray: ModuleType, most: Most) -> str | None:
    """What a cluster lacks for the largest task."""
    room = sum(most.room(node["Resources"]) for node in ray.nodes() if node["Alive"])
    each = f"{most.cpus:g} CPUs and {most.gpus:g} GPUs"
    if not room:
        return f"no node of the cluster has {each} for one run"
    if room < most.processes:
        return f"the cluster has {each} for {room} of a run's {most.processes} processes"
    return None


class RayPool:
    """What a cluster is to :func:`acn_cl.executors.drive.drive`.

    Args:
        ray: the package, connected.
        largest: what a task takes at most.
        workers: tasks that are sent at a time; ``None``: as many as the cluster has room for, and some ahead.
    """

    def __init__(self, ray: ModuleType, largest: Most, workers: int | None) -> None:
        self._ray, self._largest, self._workers = ray, largest, workers
        self._surroundings = Surroundings(
            str(Path.cwd()), {k: v for k, v in os.environ.items() if k.startswith("ACN_CL_")}
        )
        self._at_work: dict[Any, Task] = {}

    @cached_property
    def _alone(self) -> Any:
        return self._ray.remote(train)

    @cached_property
    def _together(self) -> Any:
        return self._ray.remote(resolve("acn_cl.executors.ray_together:train_together"))

    @property
    def most(self) -> int:
        """Asked anew each time: nodes come and go."""
        if self._workers is not None:
            return self._workers
        room = max(1, self._largest.room(self._ray.cluster_resources()) // self._largest.processes)
        return room if self._largest.processes > 1 else AHEAD * room

    def send(self, task: Task) -> None:
        """As :meth:`acn_cl.executors.drive.Pool.send`. Ray itself tries nothing again: the driver does, and says so."""
        options = {"num_cpus": task.cpus, "num_gpus": task.gpus, "max_retries": 0, "name": task.name}
        if task.processes > 1:  # the workers that it starts take that up
            options |= {"num_cpus": 0, "num_gpus": 0}
        function = self._together if task.processes > 1 else self._alone
        self._at_work[function.options(**options).remote(task, self._surroundings)] = task

    def wait(self, seconds: float) -> list[tuple[Task, End]]:
        """As :meth:`acn_cl.executors.drive.Pool.wait`."""
        if not self._at_work:
            return []
        over, _ = self._ray.wait(list(self._at_work), num_returns=1, timeout=seconds)
        return [(task := self._at_work.pop(one), self._end(one, task)) for one in over]

    def _end(self, one: Any, task: Task) -> End:
        errors = self._ray.exceptions
        try:
            end: End = self._ray.get(one)
        except errors.TaskCancelledError:
            return Stopped()
        except errors.RayTaskError as error:  # of ours, and it would be one again
            return Ended(tuple(job.failed(_one_line(error)) for job in task.jobs))
        except errors.RayError as error:
            return Died(f"its worker died ({_one_line(error)})")
        return end

    def stop(self) -> None:
        """As :meth:`acn_cl.executors.drive.Pool.stop`: to a task at work, a cancellation is a SIGINT."""
        for one in self._at_work:
            self._ray.cancel(one, force=False, recursive=False)  # a task ends its own workers


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
