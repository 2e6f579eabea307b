"""Experience replay. A. Chaudhry et al., "On tiny episodic memories in continual learning", 2019, arXiv 1902.10486."""

from typing import Any, Literal

from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.training.learner import Learner


class Replay(MemoryPlugin):
    """Every step learns from its batch B and from a batch M drawn from the memory.

    L = (|B|·ℓ(B) + |M|·ℓ(M)) / (|B| + |M|), ℓ the mean loss: the mean over both batches (algorithm 1).

    Differs: images enter the memory at the end of their experience, so that each is counted once however many epochs
    there are, and the current experience is not replayed. Moves: the backbone, the current head, and the heads of the
    images drawn.
    """

    def __init__(
        self, *, memory: int = 2000, balance: Literal["reservoir", "class"] = "class", batch: int | None = None
    ) -> None:
        super().__init__(memory=memory, balance=balance, batch=batch)

    def before_backward(self, strategy: Learner, **_: Any) -> None:
        if (recalled := self.recall(strategy)) is not None:
            new, old = len(strategy.mb_y), len(recalled.labels)
            strategy.loss = (new * strategy.loss + old * self.loss_of(strategy, recalled)) / (new + old)
