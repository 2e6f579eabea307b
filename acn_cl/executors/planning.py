"""From runs to tasks: which runs train together, and what a task takes up of a machine."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from acn_cl.executors.task import Job, Task
from acn_cl.spec import Experiment
from acn_cl.training.device import choose_device
from acn_cl.training.launch import processes_of
from acn_cl.training.session import build_strategy
from acn_cl.training.stack_group import group
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_size import MOST, widest_stack
from acn_cl.training.stack_strategy import can_stack


def together(jobs: Sequence[Job]) -> list[list[Job]]:
    """The runs in the order in which they train, those in one list that can train as one stack and gain by it.

    No machine's free memory has a say in it, so that machines that share a recipe's runs out agree on the shares.
    """
    units = group(
        [(job.planned.experiment, job.seed) for job in jobs],
        can_stack=lambda job: can_stack(build_strategy(job[0])),
        sizes=lambda job: StackedRun(*job).sizes,
        widest=lambda job: MOST if _is_wanted_stacked(job[0]) else 1,
    )
    return [[jobs[index] for index in unit] for unit in units]


def _is_wanted_stacked(experiment: Experiment) -> bool:
    """On a CPU one run keeps all cores busy, and stacks are made only on request; a stack is one process's."""
    if processes_of(experiment.resources.processes) > 1:
        return False
    return experiment.engine == "stacked" or choose_device(experiment.device).type == "cuda"


def tasks_of(units: Sequence[Sequence[Job]], behind: int) -> list[Task]:
    """One task a stack: what can train together, in as many equal parts as memory asks for.

    Args:
        units: as :func:`together` gives them.
        behind: how many runs are done already.
    """
    total = behind + sum(map(len, units))
    tasks: list[Task] = []
    for unit in units:
        for jobs in _in_parts(unit, -(-len(unit) // _widest(unit))):
            tasks.append(_task(jobs, (behind + 1, total)))
            behind += len(jobs)
    return tasks


def _widest(unit: Sequence[Job]) -> int:
    """Runs that train at once at most, when others are at work on the same GPU as well."""
    if len(unit) == 1:
        return 1
    experiment = unit[0].planned.experiment
    return max(1, int(widest_stack(experiment) * min(1.0, experiment.resources.gpus or 1.0)))


def _in_parts(unit: Sequence[Job], parts: int) -> list[Sequence[Job]]:
    edges = [len(unit) * part // parts for part in range(parts + 1)]
    return [unit[start:end] for start, end in pairwise(edges)]


def _task(jobs: Sequence[Job], place: tuple[int, int]) -> Task:
    experiment = jobs[0].planned.experiment
    cpus, gpus = experiment.resources.cpus, experiment.resources.gpus
    threads = torch.get_num_threads() if cpus is None else max(1, int(cpus))
    if gpus is None:
        gpus = 1.0 if choose_device(experiment.device).type == "cuda" else 0.0
    if cpus is None:
        cpus = 1.0 if gpus else threads
    return Task(tuple(jobs), place, threads, cpus, gpus, experiment.resources.processes)
