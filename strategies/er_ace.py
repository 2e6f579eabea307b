"""Experience replay with asymmetric cross-entropy. L. Caccia et al., "New insights on reducing abrupt representation
change in online continual learning", 2022, arXiv 2104.05025.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.training.learner import Learner


class ERACE(MemoryPlugin):
    """New images compete among the classes of their batch only, so that they do not push old classes away.

    L = ℓ(B; classes in B) + ℓ(M; all classes), ℓ a cross-entropy over the given classes (eq. 5).

    The memory takes in an experience's images before it trains, as in Avalanche: only there do new classes compete with
    old ones. It is drawn from, from the second experience on. Differs: the paper adds images as they come; Avalanche
    halves the sum. Moves: the backbone, the current head, and the heads of the images drawn.
    """

    def __init__(
        self, *, memory: int = 2000, balance: Literal["reservoir", "class"] = "class", batch: int | None = None
    ) -> None:
        super().__init__(memory=memory, balance=balance, batch=batch)

    def before_training_exp(self, strategy: Learner, **_: Any) -> None:
        if self.begins(strategy):
            self.enter(strategy)

    def before_backward(self, strategy: Learner, **_: Any) -> None:
        if strategy.experience.current_experience == 0 or (recalled := self.recall(strategy)) is None:
            return
        logits, labels = among_present(strategy.mb_output, strategy.mb_y)
        strategy.loss = strategy.batch_loss(logits, labels) + self.loss_of(strategy, recalled)

    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        """The experience's images entered before it was trained."""


def among_present(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels among the K classes that the labels name: (B, classes), (B,) -> (B, K), (B,)."""
    present, labels = torch.unique(labels, return_inverse=True)
    return logits[:, present], labels
