"""Several worker processes on this machine, a device each where there are several."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Self

import torch

from acn_cl.bookkeeping import Display
from acn_cl.errors import SpecError, UserError
from acn_cl.executors.drive import drive
from acn_cl.executors.task import Died, End, Ended, Task, check_processes
from acn_cl.executors.worker import work
from acn_cl.training.interrupt import StopRequest

GRACE = 5.0
"""Seconds in which a worker that has nothing to do ends by itself."""


class Processes:
    """Trains as many tasks at a time as there are workers.

    Args:
        workers: how many; ``None``: as many as the tasks' ``resources`` fit into this machine.

    Raises:
        UserError: fewer than one worker.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: at least 1 is wanted")
        self._workers = workers

    def run(self, tasks: Sequence[Task], display: Display, stop: StopRequest) -> Iterator[Ended]:
        """As :meth:`acn_cl.executors.task.Executor.run`."""
        check_devices(tasks)
        check_processes(tasks)
        threads, gpus = max(task.threads for task in tasks), max(task.gpus for task in tasks)
        cards = visible_gpus() if gpus else []
        count = min(self._workers or _fitting(threads, gpus, len(cards)), len(tasks))
        if count * threads > cores():
            display.note(f"{count} workers of {threads} threads on {cores()} cores: they will wait for each other")
        elif self._workers is None and not gpus and count == 1 < len(tasks):
            display.note(
                f"one worker, since a run takes {threads} threads here; resources.cpus=1 makes room for more "
                "(another number of threads changes the last bits)"
            )
        with ProcessPool(count, cards, gpus) as pool:
            yield from drive(pool, tasks, display, stop)


def _fitting(threads: int, gpus: float, cards: int) -> int:
    return max(1, int(cards / gpus + 1e-9) if gpus else cores() // threads)


def cores() -> int:
    """Cores that this process may use: what a batch system has granted, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The CUDA devices of this process, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def check_devices(tasks: Sequence[Task]) -> None:
    """Workers are given their cards.

    Raises:
        SpecError: a spec names one card.
    """
    for job in (job for task in tasks for job in task.jobs):
        if ":" in (device := job.planned.experiment.device):
            raise SpecError(("device",), f"{device} is one card, and every worker has its own; use cuda or auto")


class ProcessPool:
    """Worker processes that live as long as this context.

    Args:
        count: how many.
        cards: names of the GPUs that they share out; empty: none.
        gpus: GPUs that a task takes, which says how many workers share a card.
    """

    def __init__(self, count: int, cards: Sequence[str] = (), gpus: float = 0.0) -> None:
        self.most = count
        each = max(1, int(1 / gpus + 1e-9)) if gpus else 1
        self._workers = [_Worker(cards[index // each % len(cards)] if cards else "") for index in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    def send(self, task: Task) -> None:
        """Give a task to a worker that has none; one that has died is replaced first."""
        next(worker for worker in self._workers if worker.task is None).send(task)

    def wait(self, seconds: float) -> list[tuple[Task, End]]:
        """As :meth:`acn_cl.executors.drive.Pool.wait`."""
        busy = {worker.connection: worker for worker in self._workers if worker.task is not None}
        return [busy[ready].end() for ready in wait(list(busy), seconds)]  # type: ignore[index]

    def stop(self) -> None:
        """As :meth:`acn_cl.executors.drive.Pool.stop`."""
        for worker in self._workers:
            worker.process.terminate()


class _Worker:
    """One process, what it is working on, and the way to talk to it."""

    def __init__(self, card: str) -> None:
        self._card = card
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and CUDA's state
        self.task: Task | None = None
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self._card), name="acn-cl worker")
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def send(self, task: Task) -> None:
        if not self.process.is_alive():
            self._start()
        self.task = task
        try:
            self.connection.send(task)
        except OSError:  # it died just now: `end` finds the pipe closed and says so
            return

    def end(self) -> tuple[Task, End]:
        """What came of the task, once the connection has something to read."""
        assert self.task is not None
        task, self.task = self.task, None
        try:
            end: End = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            end = Died(f"its worker ended with {_in_words(self.process.exitcode)}")
        return task, end

    def close(self) -> None:
        """End the process: by itself if it has nothing to do, by force otherwise."""
        self.connection.close()
        self.process.join(GRACE if self.task is None else 0)
        self.process.kill()
        self.process.join()


def _in_words(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
