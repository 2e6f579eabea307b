"""Elastic Weight Consolidation. J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017.

arXiv 1612.00796; ``online`` after J. Schwarz et al., "Progress & Compress", 2018, arXiv 1805.06370. Symbols: θ the
weights, θ_t the weights at the end of experience t, F_t the diagonal of its Fisher information.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acn_cl.strategies.regulariser import Gradients, GradientSource, Regulariser, grown


class EWC(Regulariser):
    """Weights that the Fisher information calls important are held where they were.

    ``separate``: penalty λ Σ_t Σ F_t (θ-θ_t)². It is kept collapsed, without loss: with S = Σ_t F_t and m the
    F-weighted mean of the θ_t, it equals λ (Σ S (θ-m)² + k) for a constant k, so neither time nor memory grows with the
    number of experiences. (Expanding the square instead, with Σ F_t θ_t, would cancel away its digits in fp32.)

    ``online``: penalty λ Σ S (θ-θ_t)² with S ← decay·S + F_t and θ_t the last weights.

    F_t is E[(∂ log p(y|x) / ∂θ)²] over the experience's images x, in evaluation mode:

    =============  ======================================================================================
    ``batch``      squared gradients of mini-batches, not of images, as Avalanche: depends on the batch size
    ``empirical``  of each image, y its label
    ``sampled``    of each image, y drawn from the network's prediction: the Fisher information by definition
    =============  ======================================================================================

    Differs: no factor 1/2, as in Avalanche; images without augmentation by default, where Avalanche takes the
    augmented training set. Moves: the backbone and every head seen so far.
    """

    kept = ("fisher", "centre", "constant")

    def __init__(
        self,
        *,
        lambda_: float = 1e4,
        mode: Literal["separate", "online"] = "separate",
        decay: float = 1.0,
        fisher: Literal["batch", "empirical", "sampled"] = "batch",
        augmented: bool = False,
    ) -> None:
        self.lambda_, self.mode, self.decay, self.augmented = lambda_, mode, decay, augmented
        self.estimate = fisher
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

    def end(self, parameters: Sequence[Tensor], gradients: GradientSource) -> None:
        fresh = mean_squares(parameters, self._gradients(gradients))
        with torch.no_grad():
            self.fisher = grown(self.fisher, parameters, torch.zeros_like)
            self.centre = grown(self.centre, parameters, torch.clone)
            if self.mode == "separate":
                self._merge(parameters, fresh)
            else:
                torch._foreach_mul_(self.fisher, self.decay)
                torch._foreach_add_(self.fisher, fresh)
                torch._foreach_copy_(self.centre, list(parameters))

    def _gradients(self, source: GradientSource) -> Iterable[Gradients]:
        match self.estimate:
            case "batch":
                return source("loss", each="batch", augmented=self.augmented)
            case "empirical":
                return source("loss", each="image", augmented=self.augmented)
            case "sampled":
                return source("sampled-loss", each="image", augmented=self.augmented)

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


@torch.no_grad()
def mean_squares(parameters: Sequence[Tensor], gradients: Iterable[Gradients]) -> list[Tensor]:
    """Mean of the squared gradients, one tensor a parameter (zeros where there are none)."""
    total = [torch.zeros_like(p) for p in parameters]
    count = 0
    for rows in gradients:
        torch._foreach_add_(total, [(g**2).sum(0) for g in rows])
        count += len(rows[0])
    torch._foreach_div_(total, max(1, count))
    return total
