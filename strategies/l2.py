"""L2 to the last weights: what every importance-weighted penalty is to be compared with.

The baseline of J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017, arXiv 1612.00796,
figure 2A. Symbols: θ the weights, θ* those at the end of the last experience.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from acn_cl.strategies.regulariser import GradientSource, Regulariser, grown


class L2(Regulariser):
    """Every weight is held where it was, all alike: penalty λ Σ (θ-θ*)².

    That is EWC with F = 1. Moves: the backbone and every head seen so far.
    """

    kept = ("anchor",)

    def __init__(self, *, lambda_: float = 0.01) -> None:
        self.lambda_ = lambda_
        self.anchor: list[Tensor] = []  # θ*

    @torch.no_grad()
    def begin(self, parameters: Sequence[Tensor]) -> None:
        self.anchor = grown(self.anchor, parameters[: len(self.anchor)], torch.clone)

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        terms = [((p - a) ** 2).sum() for p, a in zip(parameters, self.anchor, strict=False)]
        return self.lambda_ * torch.stack(terms).sum() if terms else torch.zeros(())

    def pull(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        if not self.anchor:
            return []
        away = torch._foreach_sub(list(parameters[: len(self.anchor)]), self.anchor)
        torch._foreach_mul_(away, 2 * self.lambda_)
        return list(away)

    def end(self, parameters: Sequence[Tensor], gradients: GradientSource) -> None:
        self.anchor = [p.detach().clone() for p in parameters]

    def importance(self) -> list[Tensor]:
        return [torch.ones_like(a) for a in self.anchor]
