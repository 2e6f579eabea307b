"""A task whose run several processes train together: Ray Train starts them and joins them, as torchrun does elsewhere.

Ray finds this module by its name. Its functions run in processes of their own, the innermost first told of: the
workers (:func:`_work`), and a Ray task that takes up nothing and watches over them (:func:`train_together`).
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from acn_cl.bookkeeping import Outcome
from acn_cl.errors import UserError
from acn_cl.executors.perform import Notes, performed
from acn_cl.executors.ray_task import Surroundings, settle
from acn_cl.executors.task import Died, End, Ended, Job, Task
from acn_cl.runs.folder import RunFolder
from acn_cl.together import LOST
from acn_cl.training.interrupt import StopRequest, stop_on_signals
from acn_cl.training.world import PATIENCE, SharedStop, join, lost_another

POLL = 0.5
"""Seconds between two looks at whether somebody asked to stop."""


class Board:
    """What workers and their watcher tell each other: an actor, since no signal reaches the workers' threads."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._end: End | None = None
        self._reasons: list[str] = []

    def ask_to_stop(self, signal: int) -> None:
        """Said by the watcher."""
        self._signal = signal

    def signal(self) -> int | None:
        """Asked by the first worker; the others learn it from that one."""
        return self._signal

    def end_with(self, end: End) -> None:
        """Said by the first worker."""
        self._end = end

    def cannot_go_on(self, why: str) -> None:
        """Said by a worker that ends all of them."""
        self._reasons.append(why)

    def read(self) -> tuple[End | None, list[str]]:
        """Asked by the watcher when all is over."""
        return self._end, self._reasons


class OnBoard(StopRequest):
    """A stop that is asked for on a board, which is looked at now and then."""

    def __init__(self, board: Any) -> None:
        super().__init__()
        self._board, self._next = board, 0.0

    def asked(self) -> int | None:
        if self.signal is None and time.monotonic() >= self._next:
            self.signal = ray.get(self._board.signal.remote())
            self._next = time.monotonic() + POLL
        return self.signal


def train_together(task: Task, surroundings: Surroundings) -> End:
    """Have ``task.processes`` workers train a task's run, and watch over them until they have ended."""
    settle(task, surroundings)
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    with stop_on_signals(patient=True) as stop, ThreadPoolExecutor(1) as thread:  # Ray Train would take the signals
        fitted = thread.submit(_fit, task, surroundings, board)
        while not wait([fitted], timeout=POLL).done:
            if stop.signal is not None:
                ray.get(board.ask_to_stop.remote(stop.signal))
    end, reasons = ray.get(board.read.remote())
    if end is not None:
        return end  # type: ignore[no-any-return]
    if reasons:
        return Ended(tuple(_written_down(job, reasons[0]) for job in task.jobs))
    return Died(f"one of its {task.processes} workers died ({' '.join(str(fitted.exception()).split())[:200]})")


def _fit(task: Task, surroundings: Surroundings, board: Any) -> None:
    """
    Raises:
        TrainingFailedError: a worker has died or raised something.
    """
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # names of somebody's own may be looked for in the current folder
    with tempfile.TemporaryDirectory() as nothing_of_ours:
        TorchTrainer(
            _work,
            train_loop_config={"task": task, "surroundings": surroundings, "board": board},
            torch_config=TorchConfig("nccl" if task.gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=task.processes,
                use_gpu=bool(task.gpus),
                resources_per_worker={"CPU": task.cpus} | ({"GPU": task.gpus} if task.gpus else {}),
            ),
            # The driver tries again, and says so.
            run_config=RunConfig(storage_path=nothing_of_ours, failure_config=FailureConfig(max_failures=0)),
        ).fit()


def _work(config: dict[str, Any]) -> None:
    """What every worker does, in a thread. What one raises ends all of them."""
    task, board = config["task"], config["board"]
    settle(task, config["surroundings"])
    world, notes = join(), Notes()
    stop = SharedStop(OnBoard(board) if world.first else StopRequest(), world)
    try:
        end = performed(task, notes, stop, world)
    except Exception as error:
        line = " ".join(f"{error}".split()) or type(error).__name__
        if not lost_another(error) and LOST not in line:
            ray.get(board.cannot_go_on.remote(line))
        raise
    if world.first:
        ray.get(board.end_with.remote(end))


def _written_down(job: Job, why: str) -> Outcome:
    """Why a run ended, in its folder too: its first worker may have been ended before it could say so."""
    folder = RunFolder(job.path, job.planned.id, job.seed)
    with suppress(UserError, OSError):
        folder.hold()
        folder.write_status("failed", {}, why)
        folder.release()
    return job.failed(why)
