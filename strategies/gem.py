"""Gradient Episodic Memory. D. Lopez-Paz, M. Ranzato, "Gradient episodic memory for continual learning", 2017.

arXiv 1706.08840. Symbols: g the gradient of the step's loss; the rows of G those of the losses on the memories of the
old experiences; v the dual variables, one an old experience; γ the memory strength.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from torch import Tensor

from acn_cl.strategies.agem import gradients
from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.strategies.regulariser import gradient_of
from acn_cl.training.learner import Learner

RIDGE = 1e-3  # added to the diagonal of GGᵀ, as in the authors' code


class GEM(MemoryPlugin):
    """A step must not raise the loss on any old experience's memory, to first order.

    Where some element of Gg is negative, g is replaced by the nearest vector with none: g + Gᵀv, where v solves
    min ½ vᵀGGᵀv + (Gg)ᵀv subject to v ≥ γ (eq. 11, and γ as in the authors' code).

    A step takes a gradient of every old experience's whole memory, which makes it about memory / batch_size times as
    slow. Differs: one memory for all experiences, with equal shares, where the paper gives each the same from the
    start. Moves: the backbone and the current head; where g is replaced, every head seen so far.
    """

    in_parts = True

    def __init__(self, *, memory: int = 1000, strength: float = 0.5) -> None:
        super().__init__(memory=memory, balance="experience", batch=None)
        self.strength = strength

    def after_backward(self, strategy: Learner, **_: Any) -> None:
        if not len(self.memory):
            return
        parameters = [p for p in strategy.model.parameters() if p.requires_grad]
        with torch.no_grad():
            g = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        rows = [flat(gradients(loss, parameters)) for loss in self._losses(strategy)]
        G = torch.stack(rows)
        if not (G @ g < 0).any():
            return
        v = dual(as_double(G @ G.T), as_double(G @ g), self.strength)
        with torch.no_grad():
            added = torch.split(torch.from_numpy(v).to(G) @ G, [p.numel() for p in parameters])
            for p, a in zip(parameters, added, strict=True):
                gradient_of(p).add_(a.view_as(p))

    def _losses(self, learner: Learner) -> Any:
        """The loss on each old experience's memory, un-augmented, one at a time."""
        for index in range(learner.experience.current_experience):
            rows = self.memory["experiences"] == index
            images = learner.transform.evaluate(self.memory["images"][rows])
            yield learner.mean_loss(learner.logits(images, learner.task_label(index)), self.memory["labels"][rows])


def dual(gram: npt.NDArray[np.float64], along: npt.NDArray[np.float64], strength: float) -> npt.NDArray[np.float64]:
    """Minimise ½ vᵀPv + qᵀv subject to v ≥ γ, with P the Gram matrix GGᵀ and a small ridge.

    With v = γ + u and P = LLᵀ that is the non-negative least-squares problem min ‖Lᵀu + L⁻¹(q + γP1)‖, u ≥ 0, which
    scipy solves exactly; no other solver is needed.

    Args:
        gram: (T, T), GGᵀ.
        along: (T,), q = Gg.
        strength: γ.

    Returns:
        v, (T,).
    """
    P = gram + RIDGE * np.eye(len(gram))
    L = cholesky(P, lower=True)
    target = -solve_triangular(L, along + strength * P.sum(1), lower=True)
    return nnls(L.T, target)[0] + strength


def flat(tensors: list[Tensor]) -> Tensor:
    """All elements in one row, (P,)."""
    return torch.cat([t.flatten() for t in tensors])


def as_double(tensor: Tensor) -> npt.NDArray[np.float64]:
    """A copy in numpy, in double precision."""
    return tensor.detach().cpu().double().numpy()
