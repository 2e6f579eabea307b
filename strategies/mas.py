"""Memory Aware Synapses. R. Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", 2018.

arXiv 1711.09601. Symbols: F(x) the logits of an image, θ the weights, θ* those at the end of the last experience, Ω
the importance. Needs no labels.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acn_cl.strategies.regulariser import Gradients, GradientSource, Regulariser, grown


class MAS(Regulariser):
    """Weights that the logits are sensitive to are held where they were.

    Ω_new = E[|∂‖F(x)‖² / ∂θ|] over the experience's images (eq. 3, in the form of section 4.3 with the squared norm),
    Ω ← keep·Ω + (1-keep)·Ω_new, penalty λ Σ Ω (θ-θ*)² (eq. 4). ``each`` is what a gradient is taken of: every image,
    as in the paper, or the mean of a mini-batch, as in Avalanche.

    Differs: the paper sums Ω over experiences; here it is a moving average, as in Avalanche (whose plug-in computes it
    in training mode, from augmented images). Moves: the backbone and every head seen so far.
    """

    kept = ("omega", "anchor")

    def __init__(self, *, lambda_: float = 1.0, keep: float = 0.5, each: Literal["batch", "image"] = "batch") -> None:
        self.lambda_, self.keep, self.each = lambda_, keep, each
        self.omega: list[Tensor] = []  # Ω
        self.anchor: list[Tensor] = []  # θ*

    @torch.no_grad()
    def begin(self, parameters: Sequence[Tensor]) -> None:
        seen = parameters[: len(self.omega)]
        self.omega = grown(self.omega, seen, torch.zeros_like)
        self.anchor = grown(self.anchor, seen, torch.clone)

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        terms = [(w * (p - a) ** 2).sum() for w, p, a in zip(self.omega, parameters, self.anchor, strict=False)]
        return self.lambda_ * torch.stack(terms).sum() if terms else torch.zeros(())

    def pull(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        if not self.omega:
            return []
        away = torch._foreach_sub(list(parameters[: len(self.omega)]), self.anchor)
        torch._foreach_mul_(away, self.omega)
        torch._foreach_mul_(away, 2 * self.lambda_)
        return list(away)

    def end(self, parameters: Sequence[Tensor], gradients: GradientSource) -> None:
        fresh = mean_sizes(parameters, gradients("output", each=self.each))
        for old, new in zip(self.omega, fresh, strict=False):  # a parameter's first Ω is taken whole
            new.mul_(1 - self.keep).add_(old, alpha=self.keep)
        self.omega = fresh
        self.anchor = [p.detach().clone() for p in parameters]

    def importance(self) -> list[Tensor]:
        return self.omega


@torch.no_grad()
def mean_sizes(parameters: Sequence[Tensor], gradients: Iterable[Gradients]) -> list[Tensor]:
    """Mean of the gradients' absolute values, one tensor a parameter (zeros where there are none)."""
    total = [torch.zeros_like(p) for p in parameters]
    count = 0
    for rows in gradients:
        torch._foreach_add_(total, [g.abs().sum(0) for g in rows])
        count += len(rows[0])
    torch._foreach_div_(total, max(1, count))
    return total
