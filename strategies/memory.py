"""Training images that are kept from earlier experiences, and drawn from at every step.

Images are kept as they came, uint8 on the run's device, so that each time they are drawn they are augmented anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acn_cl.strategies.plugin import LearnerPlugin, State
from acn_cl.training.batches import DeviceData
from acn_cl.training.learner import Learner

Balance = Literal["reservoir", "class", "experience"]
KEEP, DRAW = 1, 2  # children of the data-order stream at a position: what enters the memory, what is drawn from it
CROP = 3  # child of the augmentation stream


class Memory:
    """At most ``size`` training images.

    Every image gets a random rank when it enters, and those of the lowest ranks stay: ``reservoir`` of all images seen,
    so that the memory is a uniform sample of them (as by J. Vitter's algorithm R, 1985); ``class`` and ``experience``
    of each class or experience, all of which get as equal a share of the memory as their sizes allow.

    A column has one row an image: ``images`` (M, C, H, W) uint8, ``labels``, ``tasks``, ``experiences`` and ``ranks``
    (M,) int64, and what a strategy notes besides (:meth:`note`).
    """

    def __init__(self, size: int, balance: Balance) -> None:
        self.size, self.balance = size, balance
        self.columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.columns["labels"]) if self.columns else 0

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    def add(self, data: DeviceData, *, task: int, experience: int, ranks: Tensor) -> None:
        """Let the images of one experience enter, and drop what is too much.

        Args:
            data: N images.
            task: their task label.
            experience: their experience's index.
            ranks: (N,) int64; the lowest stay.
        """
        new = {
            "images": data.images,
            "labels": data.labels,
            "tasks": torch.full_like(data.labels, task),
            "experiences": torch.full_like(data.labels, experience),
            "ranks": ranks.to(data.labels.device),
        }
        kept = self._kept(new).to(data.labels.device)
        old, fresh = kept[kept < len(self)], kept[kept >= len(self)] - len(self)
        if not self.columns:
            self.columns = {name: rows[:0] for name, rows in new.items()}
        for name, rows in self.columns.items():
            # What a strategy notes of its images is not known of the new ones yet.
            entering = new[name][fresh] if name in new else rows.new_full((len(fresh), *rows.shape[1:]), torch.nan)
            self.columns[name] = torch.cat([rows[old], entering])

    def _kept(self, new: Mapping[str, Any]) -> Tensor:
        """Which rows stay, of the memory's and then the new ones, ascending."""
        both = {
            name: np.concatenate([columns[name].cpu().numpy() for columns in (self.columns, new) if columns])
            for name in ("labels", "tasks", "experiences", "ranks")
        }
        groups = {
            "reservoir": np.zeros_like(both["ranks"]),
            "class": both["tasks"] * (both["labels"].max(initial=0) + 1) + both["labels"],
            "experience": both["experiences"],
        }
        return torch.from_numpy(evenly(groups[self.balance], both["ranks"], self.size))

    def note(self, name: str, values: Tensor, rows: Tensor) -> None:
        """Write (n, K) float ``values`` into column ``name`` at ``rows``; what is not known there is NaN."""
        width = max(values.shape[1], self.columns[name].shape[1] if name in self.columns else 0)
        wide = values.new_full((len(self), width), torch.nan)
        if name in self.columns:
            wide[:, : self.columns[name].shape[1]] = self.columns[name]
        wide[rows, : values.shape[1]] = values
        self.columns[name] = wide


def evenly(groups: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Which of N rows stay: of each group those of the lowest ranks, and of the groups as equally many as can be.

    Args:
        groups: (N,) the group of each row.
        ranks: (N,).
        size: how many stay at most.

    Returns:
        indices, ascending.
    """
    order = np.lexsort((ranks, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] - 1))
    place = np.empty_like(order)  # of each row within its group
    place[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return np.sort(np.lexsort((ranks, place))[:size])


@dataclass(frozen=True)
class Recalled:
    """Images drawn from a memory for one step.

    Args:
        images: (B, C, H, W) float, augmented.
        labels: (B,).
        tasks: (B,).
        rows: (B,) where they stand in the memory.
    """

    images: Tensor
    labels: Tensor
    tasks: Tensor
    rows: Tensor


class MemoryPlugin(LearnerPlugin):
    """A strategy with a memory; without room in it (``memory`` 0) it is naive.

    The images of an experience enter at its end. What enters and what is drawn comes from generators of the run's own,
    seeded by the position in the run.

    Args:
        memory: most images kept.
        balance: which images those are, see :class:`Memory`.
        batch: images drawn at a step; ``None`` for as many as the batch size.
    """

    inert: ClassVar[Mapping[str, Any] | None] = {"memory": 0}

    def __init__(self, *, memory: int, balance: Balance, batch: int | None) -> None:
        super().__init__()
        self.memory, self.batch = Memory(memory, balance), batch
        self.keeps_images = memory

    def recall(self, learner: Learner) -> Recalled | None:
        """Images for the current step, all different; ``None`` while the memory is empty."""
        size = min(self.batch or learner.train_mb_size, len(self.memory))
        if not size:
            return None
        draws = learner.seeds.generator("data_order", *learner.position, DRAW)
        rows = torch.from_numpy(draws.choice(len(self.memory), size, replace=False)).to(learner.device)
        crops = torch.Generator(learner.device).manual_seed(
            learner.seeds.integer("augmentation", *learner.position, CROP)
        )
        images = learner.transform.train(self.memory["images"][rows], crops)
        return Recalled(images, self.memory["labels"][rows], self.memory["tasks"][rows], rows)

    def loss_of(self, learner: Learner, recalled: Recalled) -> Tensor:
        """Mean cross-entropy of recalled images, as the spec has it."""
        return learner.mean_loss(learner.logits(recalled.images, recalled.tasks), recalled.labels)

    def enter(self, learner: Learner) -> None:
        """Let the current experience's images enter the memory."""
        if not self.memory.size:
            return
        index = learner.experience.current_experience
        data = learner.data[index]
        draws = learner.seeds.generator("data_order", index, 0, 0, KEEP)
        ranks = torch.from_numpy(draws.integers(2**62, size=len(data)))
        self.memory.add(data, task=learner.task_label(index), experience=index, ranks=ranks)

    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        self.enter(strategy)

    def state(self) -> State:
        return super().state() | {f"memory.{name}": column for name, column in self.memory.columns.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        columns = {name.removeprefix("memory."): c for name, c in state.items() if name.startswith("memory.")}
        self.memory.columns = columns
