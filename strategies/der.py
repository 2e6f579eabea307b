"""Dark Experience Replay. P. Buzzega et al., "Dark experience for general continual learning", 2020, arXiv 2004.07211.

Symbols: h(x) the logits, z an old image's logits when its experience ended.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.strategies.plugin import precise
from acn_cl.training.heads import MASKED
from acn_cl.training.learner import Learner

AT_ONCE = 500  # images; without gradients there is memory for more than a training batch


class DER(MemoryPlugin):
    """Every step recalls images of the memory together with what the network answered to them.

    L = ℓ(B) + alpha·E_M[(h(x) - z)²] + beta·ℓ(M), the mean also over units (eq. 6; with beta > 0 it is DER++, eq. 7).
    Units that z does not have, because they came later, are left out of the second term.

    Differs: z is noted at the end of the experience, in evaluation mode, of the image as it is, where the paper notes
    it in passing, of the augmented image; images enter then too; one batch serves both terms. The first and the last
    are as in Avalanche, whose model cannot grow. Moves: the backbone, the current head, and the heads of the images
    drawn.
    """

    def __init__(
        self,
        *,
        memory: int = 2000,
        balance: Literal["reservoir", "class"] = "reservoir",
        batch: int | None = None,
        alpha: float = 0.1,
        beta: float = 0.5,
    ) -> None:
        super().__init__(memory=memory if alpha or beta else 0, balance=balance, batch=batch)
        self.alpha, self.beta = alpha, beta

    def before_backward(self, strategy: Learner, **_: Any) -> None:
        if (recalled := self.recall(strategy)) is None:
            return
        h = strategy.logits(recalled.images, recalled.tasks)
        z = self.memory["logits"][recalled.rows]
        replayed = strategy.mean_loss(h, recalled.labels)
        strategy.loss = strategy.loss + self.alpha * mean_square(precise(h), z) + self.beta * replayed

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        self.enter(strategy)
        if not len(self.memory):
            return
        index = strategy.experience.current_experience
        was_training = strategy.model.training
        strategy.model.eval()
        for rows in torch.split(torch.nonzero(self.memory["experiences"] == index)[:, 0], AT_ONCE):
            images = strategy.transform.evaluate(self.memory["images"][rows])
            z = precise(strategy.logits(images, strategy.task_label(index)))
            self.memory.note("logits", z.masked_fill(z <= MASKED, torch.nan), rows)
        strategy.model.train(was_training)


def mean_square(h: Tensor, z: Tensor) -> Tensor:
    """Mean of (h - z)² over the entries that z has: h (B, units), z (B, fewer or more), NaN where there is no unit."""
    units = min(h.shape[1], z.shape[1])
    h, z = h[:, :units], z[:, :units]
    known = ~z.isnan()
    away = torch.where(known, h - z.nan_to_num(), 0.0)
    return (away**2).sum() / known.sum()
