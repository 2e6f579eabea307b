"""The sides of a bench: runs of ours, plain Avalanche, and the hardware's limit."""

import json
import os
import subprocess
import sys
from typing import Self

import torch

from acn_cl.bench.timing import seconds
from acn_cl.bookkeeping import Quiet
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.spec import Experiment
from acn_cl.training.device import fp32_products
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.per_run import choose_per_run
from acn_cl.training.rate import MatrixProducts
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_training import StackTraining

OFTEN = 100
"""Steps of a batch size that count as often: ours are to be computed as in a run of the usual length, while a bench's
are few. The smaller last batch of an experience stays below it, as it would there."""
PLAIN_PROGRAM = "acn_cl.training.plain_avalanche"


class Ours:
    """Runs of ours that learn one experience after the other, or one experience again and again.

    Args:
        experiment: of all runs.
        runs: how many; their seeds are 0, 1, …

    ``notes`` has what the runs would have been told, such as that a step could not be compiled.
    """

    def __init__(self, experiment: Experiment, runs: int) -> None:
        stack = [StackedRun(experiment, seed) for seed in range(runs)]
        self.notes: list[str] = []
        self._per_run = choose_per_run(stack[0].device, stack[0].precision, runs, self.notes.append, OFTEN)
        self.training = StackTraining(
            stack, [_Silent()] * runs, StopRequest(), self._per_run, lambda number, checkpoint: None
        )
        self._device, self._runs, self._next = stack[0].device, runs, 0
        self.steps = -(-len(stack[0].stream.experiences[0].train) // experiment.batch_size)

    def next(self) -> float:
        """Learn the next experience."""
        self._next += 1
        return self._learn(self._next - 1)

    def go_to(self, experience: int) -> "Ours":
        """Learn what comes before ``experience``."""
        while self._next < experience:
            self.next()
        return self

    def again(self) -> float:
        """Learn the experience that was gone to, or go on with it."""
        return self._learn(self._next)

    def _learn(self, experience: int) -> float:
        with fp32_products(tf32=False):
            return seconds(lambda: self.training.learn(experience), self._device) / self.steps / self._runs


class Plain:
    """Plain Avalanche in a process of its own, one run that learns one experience after the other.

    Args:
        experiment: of the run; its seed is 0.
        device: where it trains.
        steps: of an experience.
    """

    def __init__(self, experiment: Experiment, device: torch.device, steps: int) -> None:
        told = {
            "experiment": experiment.as_dict(),
            "seed": 0,
            "device": str(device),
            "threads": torch.get_num_threads(),
        }
        self._steps, self._next = steps, 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", PLAIN_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._ask(json.dumps(told))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it ends

    def next(self) -> float:
        """Learn the next experience."""
        self._ask(str(self._next))
        self._next += 1
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{PLAIN_PROGRAM} ended with code {self._process.wait()}; its error stands above")
        return float(answer) / self._steps

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


class Limit:
    """The time that a step's operations would take at the rate of the backbone's largest matrix product.

    Operations: those of the forward pass, as torch's counter has them, three times (a backward pass is two).
    Rate: of (64 B, d) by (d, 4d) and back, in the given precision, measured anew each time.
    """

    def __init__(self, experiment: Experiment, device: torch.device, precision: str) -> None:
        backbone = StackedRun(experiment, 0).build_network().backbone
        self._flops = 3 * backbone.flops_by_depth(experiment.batch_size)[-1]
        self._products = MatrixProducts(device, precision, 64 * experiment.batch_size, backbone.feature_size)

    def step(self) -> float:
        """Seconds."""
        return self._flops / self._products.rate()


class _Silent(Quiet):
    """A watcher that does not watch, and keeps nothing."""

    def save(self, checkpoint: Checkpoint) -> None:
        pass
