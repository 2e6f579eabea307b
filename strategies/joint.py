"""Training on everything so far, from new weights: what continual learning is measured against."""

from collections.abc import Mapping
from typing import Any

from acn_cl.strategies.cumulative import Cumulative
from acn_cl.strategies.fresh import FreshStart
from acn_cl.strategies.plugin import State
from acn_cl.training.learner import Learner


class Joint(Cumulative):
    """Each experience begins with the network's first weights, and trains them on all images so far together.

    Row t of the accuracy matrix is joint training on experiences 0..t: the last row is the upper anchor of a report,
    the diagonal the reference of intransigence (A. Chaudhry et al., "Riemannian walk", 2018, arXiv 1801.10112). A
    stream of T experiences costs (T+1)/2 times as much as naive.

    Moves: the backbone and every head seen so far. Weights are put back at the beginning of every experience.
    """

    keeps_weights = 1

    def __init__(self) -> None:
        super().__init__()
        self._fresh = FreshStart()

    def before_training_exp(self, strategy: Learner, **_: Any) -> None:
        if self.begins(strategy):
            self._fresh.restart(strategy)

    def state(self) -> State:
        return super().state() | self._fresh.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._fresh.load_state(state)
