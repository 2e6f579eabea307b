"""Elastic Weight Consolidation. J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017.

arXiv 1612.00796; ``online`` after J. Schwarz et al., "Progress & Compress", 2018, arXiv 1805.06370. Symbols: θ the
weights, θ_t the weights at the end of experience t, F_t the diagonal of its Fisher information.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acn_cl.strategies.regulariser import Gradients, Regulariser, grown


class EWC(Regulariser):
    """Weights that the Fisher information calls important are held where they were.

    ``separate``: penalty λ Σ_t Σ F_t (θ-θ_t)². It is kept collapsed, without loss: with S = Σ_t F_t and m the
    F-weighted mean of the θ_t, it equals λ (Σ S (θ-m)² + k) for a constant k, so neither time nor memory grows with the
    number of experiences. (Expanding the square instead, with Σ F_t θ_t, would cancel away its digits in fp32.)

    ``online``: penalty λ Σ S (θ-θ_t)² with S ← decay·S + F_t and θ_t the last weights.

    F_t is the mean over mini-batches of the squared mini-batch gradient, as Avalanche computes it; it depends on the
    batch size. Differs: from images without augmentation, where Avalanche takes the augmented training set.
    """

    def __init__(
        self, *, lambda_: float = 1.0, mode: Literal["separate", "online"] = "separate", decay: float = 1.0
    ) -> None:
        self.lambda_, self.mode, self.decay = lambda_, mode, decay
        self.fisher: list[Tensor] = []  # S
        self.centre: list[Tensor] = []  # m, or the last θ_t
        self.constant = 0.0  # k

    @torch.no_grad()
    def begin(self, parameters: Sequence[Tensor]) -> None:
        seen = parameters[: len(self.fisher)]
        self.fisher = grown(self.fisher, seen, torch.zeros_like)
        self.centre = grown(self.centre, seen, torch.clone)

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        terms = [(f * (p - m) ** 2).sum() for f, p, m in zip(self.fisher, parameters, self.centre, strict=False)]
        return self.lambda_ * (torch.stack(terms).sum() + self.constant) if terms else torch.zeros(())

    def pull(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        if not self.fisher:
            return []
        away = torch._foreach_sub(list(parameters[: len(self.fisher)]), self.centre)
        torch._foreach_mul_(away, self.fisher)
        torch._foreach_mul_(away, 2 * self.lambda_)
        return list(away)

    def end(self, parameters: Sequence[Tensor], gradients: Callable[[], Iterable[Gradients]]) -> None:
        fresh = mean_squared_gradients(parameters, gradients())
        with torch.no_grad():
            self.fisher = grown(self.fisher, parameters, torch.zeros_like)
            self.centre = grown(self.centre, parameters, torch.clone)
            if self.mode == "separate":
                self._merge(parameters, fresh)
            else:
                torch._foreach_mul_(self.fisher, self.decay)
                torch._foreach_add_(self.fisher, fresh)
                torch._foreach_copy_(self.centre, list(parameters))

    def _merge(self, parameters: Sequence[Tensor], fresh: list[Tensor]) -> None:
        for fisher, centre, parameter, new in zip(self.fisher, self.centre, parameters, fresh, strict=True):
            total = fisher + new
            share = torch.where(total > 0, new / total, 0.0)
            shift = parameter - centre
            self.constant += float((fisher * share * shift**2).sum(dtype=torch.float64))
            centre += share * shift
            fisher.copy_(total)

    def importance(self) -> list[Tensor]:
        return self.fisher


def mean_squared_gradients(parameters: Sequence[Tensor], gradients: Iterable[Gradients]) -> list[Tensor]:
    """Mean over mini-batches of the squared gradient, one tensor a parameter (zeros for no batches)."""
    total = [torch.zeros_like(p) for p in parameters]
    count = 0
    for batch in gradients:
        torch._foreach_addcmul_(total, batch, batch)
        count += 1
    if count:
        torch._foreach_div_(total, count)
    return total
