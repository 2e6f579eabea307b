"""A Ray cluster: one of this machine alone, or one that was started before."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from acn_cl.bookkeeping import Display
from acn_cl.errors import SpecError, UserError
from acn_cl.executors.drive import drive
from acn_cl.executors.processes import check_devices
from acn_cl.executors.ray_task import Surroundings, train
from acn_cl.executors.task import Died, End, Ended, Stopped, Task
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
        cpus, gpus = max(task.cpus for task in tasks), max(task.gpus for task in tasks)
        with _connected(self._ray, self._address):
            if not _fits(self._ray, cpus, gpus):
                problem = f"no node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for one run"
                if self._address is None:
                    raise SpecError(("resources",), f"{problem}; ask for less")
                display.note(f"{problem}; waiting for one that has (resources.cpus and resources.gpus say how much)")
            yield from drive(RayPool(self._ray, cpus, gpus, self._workers), tasks, display, stop)


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


def _fits(ray: ModuleType, cpus: float, gpus: float) -> bool:
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(one.get("CPU", 0) + SLACK >= cpus and one.get("GPU", 0) + SLACK >= gpus for one in found)


class RayPool:
    """What a cluster is to :func:`acn_cl.executors.drive.drive`.

    Args:
        ray: the package, connected.
        cpus: that a task takes at most.
        gpus: likewise.
        workers: tasks that are sent at a time; ``None``: as many as the cluster has room for, and some ahead.
    """

    def __init__(self, ray: ModuleType, cpus: float, gpus: float, workers: int | None) -> None:
        self._ray, self._cpus, self._gpus, self._workers = ray, cpus, gpus, workers
        self._train = ray.remote(train)
        self._surroundings = Surroundings(
            str(Path.cwd()), {k: v for k, v in os.environ.items() if k.startswith("ACN_CL_")}
        )
        self._at_work: dict[Any, Task] = {}

    @property
    def most(self) -> int:
        """Asked anew each time: nodes come and go."""
        if self._workers is not None:
            return self._workers
        found = self._ray.cluster_resources()
        room = [found.get(kind, 0) / each + SLACK for kind, each in (("CPU", self._cpus), ("GPU", self._gpus)) if each]
        return AHEAD * max(1, int(min(room)))

    def send(self, task: Task) -> None:
        """As :meth:`acn_cl.executors.drive.Pool.send`. Ray itself tries nothing again: the driver does, and says so."""
        options = {"num_cpus": task.cpus, "num_gpus": task.gpus, "max_retries": 0, "name": task.name}
        self._at_work[self._train.options(**options).remote(task, self._surroundings)] = task

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
            self._ray.cancel(one, force=False)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
