"""Going back to the weights that a network began with."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from acn_cl.training.learner import Learner


class FreshStart:
    """Remembers the first weights of every part of a network, and puts them back."""

    def __init__(self) -> None:
        self.first: dict[str, Tensor] = {}

    def restart(self, learner: Learner) -> None:
        """Put the first weights back, heads that are new included, and empty the optimiser's moments."""
        now = learner.model.state_dict()
        self.first |= {name: t.clone() for name, t in now.items() if name not in self.first}
        learner.model.load_state_dict(self.first)
        learner.optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """The first weights."""
        return {f"first.{name}": t for name, t in self.first.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.first = {name.removeprefix("first."): t for name, t in state.items() if name.startswith("first.")}
