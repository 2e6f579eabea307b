"""From a run in training to a checkpoint, and back.

What a position in a run does not determine by itself is saved: parameters, the optimiser's moments, the strategy's
state, the sums of the epoch so far, and the global random generators, which other people's code draws from. Order and
augmentation are functions of the position.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.training.batches import TrainingBatches
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.learner import Learner
from acn_cl.training.watch import LayerWatch
from acn_cl.training.world import World

COUNTERS = (
    "train_iterations",
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "total_iterations",
)
"""What Avalanche's clock counts."""


class Saving(SupervisedPlugin):
    """Saves at the end of an epoch when it is time, and in the middle of one when asked to stop.

    Stands behind Avalanche's clock, which is the last plug-in otherwise: the counters are those of the next step then.

    Args:
        every_seconds: at least so long between two saves.
        save: called with the position that is next: experience, epoch, batch.
        stop: looked at after every step.
        world: the processes that save together.
    """

    def __init__(
        self, every_seconds: float, save: Callable[[tuple[int, int, int]], None], stop: StopRequest, world: World
    ) -> None:
        super().__init__()
        self._every, self._save, self._stop, self._world = every_seconds, save, stop, world
        self._last = time.monotonic()

    def saved(self) -> None:
        """Somebody saved just now: the next save is due after another ``every_seconds``."""
        self._last = time.monotonic()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        if self._stop.asked() is None:
            return
        if isinstance(
            strategy.dataloader, TrainingBatches
        ):  # of somebody else's loader, the middle cannot be found again
            self._save(strategy.position)
        self._stop.check()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        experience, epoch, _ = strategy.position
        last = epoch == strategy.train_epochs  # the end of the experience is saved by whoever tests it
        due = self._world.on_first(lambda: time.monotonic() - self._last >= self._every)
        if due and not last and isinstance(strategy.dataloader, TrainingBatches):
            self._save((experience, epoch, 0))
            self.saved()


class Resume:
    """Goes on from the middle of an experience: what Avalanche has set up for its beginning is replaced."""

    def __init__(self, checkpoint: Checkpoint, strategy: Any, watch: LayerWatch) -> None:
        self._checkpoint, self._strategy, self._watch = checkpoint, strategy, watch

    def begin_experience(self, learner: Learner) -> None:
        """After everybody's ``before_training_exp``."""
        restore(learner, self._strategy, self._checkpoint)
        learner.dataloader.epoch = self._checkpoint.epoch

    def begin_epoch(self, learner: Learner) -> None:
        """After everybody's ``before_training_epoch`` in the first epoch that is left."""
        if self._checkpoint.batch:
            learner.clock.train_epoch_iterations = self._checkpoint.batch
            learner.dataloader.batch = self._checkpoint.batch
            self._watch.load_sums(dict(_under("watch", self._checkpoint.tensors)))


def can_resume(strategy: Any) -> bool:
    """Whether a strategy says what its state is; of one that does not, a run can only start again."""
    return hasattr(strategy, "state") and hasattr(strategy, "load_state")


def capture(learner: Learner, strategy: Any, watch: LayerWatch, position: tuple[int, int, int]) -> Checkpoint:
    """Everything that a run needs to go on from ``position`` (experience, epoch, batch) but its tables."""
    tensors, plain = _split({f"strategy.{key}": value for key, value in strategy.state().items()})
    tensors |= {f"network.{name}": tensor for name, tensor in learner.model.state_dict().items()}
    optimizer = learner.optimizer.state_dict()
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if value is not None}
    tensors |= {f"watch.{key}": value for key, value in watch.sums().items()}
    tensors |= _random_tensors()
    plain["learner"] = {
        "heads": len(learner.model.heads.blocks),
        "rates": [
            {key: group[key] for key in ("lr", "initial_lr") if key in group} for group in optimizer["param_groups"]
        ],
        "schedule": learner.schedule_state(),
        "clock": {name: getattr(learner.clock, name) for name in COUNTERS},
        "python": _as_lists(random.getstate()),
    }
    # Copies: a save must not change with the training that goes on, and two names may share one storage.
    return Checkpoint(*position, {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, plain)


def restore(learner: Learner, strategy: Any, checkpoint: Checkpoint) -> None:
    """Put a learner and its strategy into the state of ``checkpoint``."""
    plain = checkpoint.plain["learner"]
    learner.model.heads.grow(plain["heads"] - 1, learner.device)
    learner.model.load_state_dict(dict(_under("network", checkpoint.tensors)))
    learner.restore_optimizer(_optimizer_state(checkpoint.tensors), plain["rates"], plain["schedule"])
    strategy.load_state(
        {key: _on(value, learner.device) for key, value in _under("strategy", checkpoint.tensors)}
        | dict(_under("strategy", checkpoint.plain))
    )
    for name in COUNTERS:
        setattr(learner.clock, name, int(plain["clock"][name]))
    random.setstate(_as_tuples(plain["python"]))
    _set_random_tensors(dict(_under("random", checkpoint.tensors)))


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return tensors, {key: value for key, value in state.items() if key not in tensors}


def _under(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name.startswith(f"{prefix}."):
            yield name.removeprefix(f"{prefix}."), value


def _on(value: Tensor, device: torch.device) -> Tensor:
    return value.to(device)


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer", tensors):
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return state


def _random_tensors() -> dict[str, Tensor]:
    """The states of torch's and numpy's global generators."""
    state: Any = np.random.get_state()  # noqa: NPY002 (this is the state that is saved)
    _, keys, position, has_gauss, gauss = state
    found = {
        "random.torch": torch.get_rng_state(),
        "random.numpy": torch.from_numpy(keys.astype(np.int64)),
        "random.numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        found |= {f"random.cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return found


def _set_random_tensors(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["torch"])
    position, has_gauss, gauss = tensors["numpy_rest"].tolist()
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))  # noqa: NPY002
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
