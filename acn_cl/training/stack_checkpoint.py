"""Checkpoints of stacked runs: each run's is what it would have saved alone, and goes on alone or in any stack.

A run of the stack is shown to :func:`acn_cl.training.resume.capture` as the learner that it would be.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from acn_cl.runs.checkpoint import Checkpoint, Position
from acn_cl.training.lean import StackLearner
from acn_cl.training.learner import Learner
from acn_cl.training.randomness import own_random_state
from acn_cl.training.resume import COUNTERS, capture
from acn_cl.training.stack_network import StackedNetwork
from acn_cl.training.stack_strategy import StackStrategy
from acn_cl.training.stack_watch import StackWatch
from acn_cl.training.watch import LayerWatch


class StackState:
    """What a stack's runs remember, taken apart by run and put together again.

    Args:
        learner: its optimiser and schedule.
        network: its parameters.
        strategy: its state.
        watch: its sums.
        random_seeds: what each run alone would seed the global generators with. A stack does not draw from them.
    """

    def __init__(
        self,
        learner: StackLearner,
        network: StackedNetwork,
        strategy: StackStrategy,
        watch: StackWatch,
        random_seeds: Sequence[int],
    ) -> None:
        self._learner, self._network, self._strategy, self._watch = learner, network, strategy, watch
        self._random_seeds = random_seeds

    def capture(self, run: int, position: Position) -> Checkpoint:
        """Everything that one run needs to go on but its tables, on the CPU."""
        learner = _AsLearner(self._learner, self._network, run, position)
        strategy = SimpleNamespace(state=lambda: self._strategy.of_run(run))
        watch = SimpleNamespace(sums=lambda: self._watch.of_run(run))
        with own_random_state(self._random_seeds[run]):
            return capture(cast(Learner, learner), strategy, cast(LayerWatch, watch), position)

    def restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Put the stack into the state of one checkpoint a run, all of one position.

        For the middle of an experience: after the learner has begun it.
        """
        first = checkpoints[0]
        self._network.grow(first.plain["learner"]["heads"] - 1)
        self._network.load(_stacked("network", checkpoints))
        self._strategy.load([_run_state(c, self._network.device) for c in checkpoints])
        if any(name.startswith("optimizer.") for name in first.tensors) or self._learner.optimizer is not None:
            self._learner.load_optimizer(_optimizer_state(checkpoints), first.plain["learner"])

    def restore_sums(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Go on in the middle of an epoch."""
        self._watch.load([dict(_under("watch", c.tensors)) for c in checkpoints])


class _AsLearner:
    """One run of a stack with what :func:`capture` reads of a learner."""

    def __init__(self, learner: StackLearner, network: StackedNetwork, run: int, position: Position) -> None:
        self._learner, self._run = learner, run
        blocks = network.template.heads.blocks
        self.model = SimpleNamespace(state_dict=lambda: network.of_run(run), heads=SimpleNamespace(blocks=blocks))
        self.optimizer = SimpleNamespace(state_dict=self._optimizer_state)
        self.clock = SimpleNamespace(**_counters(learner, position))

    def schedule_state(self) -> dict[str, Any] | None:
        return None if self._learner.schedule is None else self._learner.schedule.state_dict()

    def _optimizer_state(self) -> dict[str, Any]:
        assert self._learner.optimizer is not None
        whole = self._learner.optimizer.state_dict()
        state = {
            index: {key: _own(value, self._run) for key, value in entries.items()}
            for index, entries in whole["state"].items()
        }
        return {"state": state, "param_groups": whole["param_groups"]}


def _own(value: Any, run: int) -> Any:
    """One run's part of a moment; the count of steps is common to all."""
    return value[run] if isinstance(value, Tensor) and value.dim() else value


def _counters(learner: StackLearner, position: Position) -> dict[str, int]:
    """Avalanche's clock at ``position``."""
    experience, epoch, batch = position
    within = epoch * learner.steps_per_epoch(experience) + batch if (epoch, batch) != (0, 0) else 0
    total = within + sum(learner.epochs * learner.steps_per_epoch(i) for i in range(experience))
    return dict(zip(COUNTERS, (total, experience, epoch, within, batch, total), strict=True))


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}."): v for name, v in values.items() if name.startswith(f"{prefix}.")}


def _stacked(prefix: str, checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    runs = [_under(prefix, c.tensors) for c in checkpoints]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def _run_state(checkpoint: Checkpoint, device: torch.device) -> dict[str, Any]:
    tensors = {key: value.to(device) for key, value in _under("strategy", checkpoint.tensors).items()}
    return tensors | _under("strategy", checkpoint.plain)


def _optimizer_state(checkpoints: Sequence[Checkpoint]) -> dict[int, dict[str, Tensor]]:
    """Moments by the parameter's place, stacked; a count of steps as it is."""
    runs = [_under("optimizer", c.tensors) for c in checkpoints]
    state: dict[int, dict[str, Tensor]] = {}
    for name, first in runs[0].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = torch.stack([r[name] for r in runs]) if first.dim() else first
    return state
