"""Synaptic Intelligence. F. Zenke, B. Poole, S. Ganguli, "Continual learning through synaptic intelligence", 2017.

arXiv 1703.04200. Symbols: θ the weights, θ* the weights at the end of the last experience, g a step's gradient,
ω an experience's path integral, Ω the importance.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from acn_cl.strategies.regulariser import GradientSource, Regulariser, grown


class SynapticIntelligence(Regulariser):
    """Weights that did much to lower the loss are held where they were.

    ======================  =================================  ================================================
    \\                       ``avalanche``                      ``zenke``
    ======================  =================================  ================================================
    gradient g in ω         of the whole loss, penalty too     of the experience's loss alone (eq. 2)
    ω                       Σ_steps -g·Δθ                      the same (eq. 3)
    Ω += …                  c·ω / ((θ-θ*)² + eps)              the same (eq. 5)
    Ω is                    at most ``clip``, unbounded below  at least 0
    penalty                 λ/2 · Σ Ω (θ-θ*)²                  λ · Σ Ω (θ-θ*)²  (eq. 4, where λ is called c)
    ======================  =================================  ================================================

    Differs: ``avalanche`` is what avalanche-lib 0.6 computes on a GPU, after Maltoni & Lomonaco 2019 (arXiv
    1806.08568), and what the ACN paper ran; on a CPU Avalanche's own plug-in does nothing, because its copies of θ are
    views of it. ``c`` is 1 there whatever its signature says. Under AdamW, ω may be negative: Ω then pushes away.
    Moves: the backbone and every head there is; Avalanche's too gives each parameter a gradient, be it 0.
    """

    kept = ("anchor", "path", "total", "omega")

    def __init__(
        self,
        *,
        lambda_: float = 1.0,
        dialect: Literal["avalanche", "zenke"] = "avalanche",
        c: float = 1.0,
        eps: float = 1e-7,
        clip: float | None = 1e-3,
    ) -> None:
        self.lambda_, self.dialect, self.c, self.eps, self.clip = lambda_, dialect, c, eps, clip
        self.anchor: list[Tensor] = []  # θ*
        self.path: list[Tensor] = []  # ω
        self.total: list[Tensor] = []  # Σ over experiences, before clipping
        self.omega: list[Tensor] = []  # Ω; 0 until an experience has ended
        self.signed = dialect == "avalanche"

    @torch.no_grad()
    def begin(self, parameters: Sequence[Tensor]) -> None:
        self.anchor = [p.detach().clone() for p in parameters]
        self.path = [torch.zeros_like(p) for p in parameters]
        self.total = grown(self.total, parameters, torch.zeros_like)
        self.omega = grown(self.omega, parameters, torch.zeros_like)
        self._before = [p.detach().clone() for p in parameters]

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        factor = self.lambda_ * (0.5 if self.dialect == "avalanche" else 1.0)
        terms = [(w * (p - a) ** 2).sum() for w, p, a in zip(self.omega, parameters, self.anchor, strict=True)]
        return factor * torch.stack(terms).sum()

    def pull(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        away = torch._foreach_sub(list(parameters), self.anchor)
        torch._foreach_mul_(away, self.omega)
        factor = self.lambda_ * (1.0 if self.dialect == "avalanche" else 2.0)
        if factor != 1:
            torch._foreach_mul_(away, factor)
        return list(away)

    def before_step(self, parameters: Sequence[Tensor], task_gradients: Sequence[Tensor | None]) -> None:
        torch._foreach_copy_(self._before, list(parameters))
        if self.dialect == "zenke":
            self._task_gradients = [None if g is None else g.clone() for g in task_gradients]

    def after_step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        wanted = self._task_gradients if self.dialect == "zenke" else gradients
        moved = [(i, g) for i, g in enumerate(wanted) if g is not None]
        back = [self._before[i] for i, _ in moved]  # -Δθ, in the place of what is not needed any more
        torch._foreach_sub_(back, [parameters[i] for i, _ in moved])
        torch._foreach_addcmul_([self.path[i] for i, _ in moved], [g for _, g in moved], back)

    @torch.no_grad()
    def end(self, parameters: Sequence[Tensor], gradients: GradientSource) -> None:
        for total, path, parameter, anchor in zip(self.total, self.path, parameters, self.anchor, strict=True):
            total += self.c * path / ((parameter - anchor) ** 2 + self.eps)
        if self.dialect == "avalanche":
            self.omega = [
                total.clamp(max=self.clip) if self.clip is not None else total.clone() for total in self.total
            ]
        else:
            self.omega = [total.clamp(min=0) for total in self.total]

    def importance(self) -> list[Tensor]:
        return self.omega

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._before = [torch.empty_like(a) for a in self.anchor]
