"""Averaged Gradient Episodic Memory. A. Chaudhry et al., "Efficient lifelong learning with A-GEM", 2019.

arXiv 1812.00420. Symbols: g the gradient of the step's loss, g_ref that of the loss on a batch from the memory.
"""

from typing import Any

import torch
from torch import Tensor

from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.strategies.regulariser import gradient_of
from acn_cl.training.learner import Learner


class AGEM(MemoryPlugin):
    """A step must not raise the loss on a batch of old images, to first order.

    Where g·g_ref < 0, g is replaced by g - (g·g_ref / g_ref·g_ref) g_ref (eq. 11), which is orthogonal to g_ref.

    Differs: images enter the memory at the end of their experience, each experience with an equal share. Avalanche
    leaves heads alone that g does not reach; here they are part of g, with 0, as in the paper. Moves: the backbone and
    the current head; where g is replaced, the heads of the images drawn too.
    """

    in_parts = True

    def __init__(self, *, memory: int = 2000, batch: int | None = None) -> None:
        super().__init__(memory=memory, balance="experience", batch=batch)

    def after_backward(self, strategy: Learner, **_: Any) -> None:
        if (recalled := self.recall(strategy)) is None:
            return
        parameters = [p for p in strategy.model.parameters() if p.requires_grad]
        g_ref = gradients(self.loss_of(strategy, recalled), parameters)
        g = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        along = dot(g, g_ref)
        if along < 0:
            with torch.no_grad():
                share = along / dot(g_ref, g_ref)
                torch._foreach_sub_([gradient_of(p) for p in parameters], torch._foreach_mul(g_ref, share))


def gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The loss's gradient by each parameter, zeros where there is none; ``parameter.grad`` is left as it is."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The inner product of two lists of tensors, ()."""
    return torch.stack([x.sum() for x in torch._foreach_mul(a, b)]).sum()
