"""What a Ray worker does. Ray finds this module by its name: the suite is installed on every node."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from acn_cl.executors.task import End, Task
from acn_cl.training.interrupt import stop_on_signals


@dataclass(frozen=True)
class Surroundings:
    """What of the driver's process a worker needs.

    Args:
        folder: where it was started; names of somebody's own are looked for there.
        variables: its ``ACN_CL_…``; a node's own win.
    """

    folder: str
    variables: Mapping[str, str]


def train(task: Task, surroundings: Surroundings) -> End:
    """Train a task's runs; Ray has it run in the main thread of a process that has nothing else to do."""
    settle(task, surroundings)
    from acn_cl.executors.perform import end_of

    with stop_on_signals(patient=True) as stop:  # Ray may say it again
        return end_of(task, stop)


def settle(task: Task, surroundings: Surroundings) -> None:
    """Make a worker's process what the driver's is, as far as a task needs it; before CUDA is looked for."""
    if surroundings.folder not in sys.path:
        sys.path.append(surroundings.folder)
    for key, value in surroundings.variables.items():
        os.environ.setdefault(key, value)
    if not task.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
