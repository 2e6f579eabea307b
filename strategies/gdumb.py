"""GDumb. A. Prabhu, P. Torr, P. Dokania, "GDumb: A simple approach that questions our progress", 2020.

ECCV 2020, https://www.robots.ox.ac.uk/~tvg/publications/2020/gdumb.pdf. A greedy sampler and a dumb learner: how much
of a method's result comes from its memory alone.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from acn_cl.strategies.fresh import FreshStart
from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.strategies.plugin import State
from acn_cl.training.batches import DeviceData
from acn_cl.training.learner import Learner


class GDumb(MemoryPlugin):
    """Each experience begins with the network's first weights, and trains them on a class-balanced memory alone.

    The memory takes in the experience's images before it trains. An epoch is one pass over the memory.

    Differs: epochs, optimiser and schedule are the spec's, not the paper's SGDR with CutMix. Moves: the backbone and
    every head seen so far. Weights are put back at the beginning of every experience.
    """

    inert = None
    in_parts = True
    keeps_weights = 1

    def __init__(self, *, memory: int = 2000) -> None:
        super().__init__(memory=memory, balance="class", batch=None)
        self._fresh = FreshStart()

    def after_train_dataset_adaptation(self, strategy: Learner, **_: Any) -> None:
        self._new = self.begins(strategy)
        if self._new:
            self.enter(strategy)
        strategy.train_on(DeviceData(self.memory["images"], self.memory["labels"]), self.memory["tasks"])

    def images_an_epoch(self, sizes: Sequence[int]) -> list[int]:
        return [min(seen, self.memory.size) for seen in accumulate(sizes)]

    def before_training_exp(self, strategy: Learner, **_: Any) -> None:
        if self._new:
            self._fresh.restart(strategy)

    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        """The experience's images entered before it was trained."""

    def state(self) -> State:
        return super().state() | self._fresh.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._fresh.load_state(state)
