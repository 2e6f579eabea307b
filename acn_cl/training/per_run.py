"""One function for every run of a stack: the two ways to compute it, and which is taken where.

Tensors carry a leading run axis. A function sees one run's tensors, without it.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

Named = Mapping[str, Tensor]
Loss = Callable[..., Tensor]
"""``loss(moved, fixed, *inputs)``: parameters to differentiate by, the others, and tensors; a scalar."""


class PerRun(Protocol):
    """How a function is computed for all runs. R runs; every tensor given and returned is (R, ...)."""

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The losses (R,), and their gradients by ``moved``, in its order."""

    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        """``function(named, *inputs)`` without gradients."""


class OneByOne:
    """Run after run. On a CPU one run of the usual size keeps all cores busy, and its activations fit the caches."""

    @torch.enable_grad()
    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        values, rows = [], []
        for run in range(len(inputs[0])):
            leaves = {name: tensor[run].detach().requires_grad_() for name, tensor in moved.items()}
            value = loss(leaves, _of(run, fixed), *(tensor[run] for tensor in inputs))
            rows.append(torch.autograd.grad(value, list(leaves.values())))
            values.append(value.detach())
        return _stack(values), [_stack(gradients) for gradients in zip(*rows, strict=True)]

    @torch.no_grad()
    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        runs = range(len(inputs[0]))
        return _stack([function(_of(run, named), *(tensor[run] for tensor in inputs)) for run in runs])


class Vmapped:
    """All runs in one batched computation: few large kernels where single runs would be many small ones."""

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        gradients, values = vmap(grad_and_value(loss))(moved, fixed, *inputs)
        return values, [gradients[name] for name in moved]

    @torch.no_grad()
    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        result: Tensor = vmap(function)(named, *inputs)
        return result


def choose_per_run(device: torch.device, runs: int) -> PerRun:
    """The faster way on this device. On a CPU batching gained nothing at any size tried: see ``docs/speed.md``."""
    return Vmapped() if device.type != "cpu" and runs > 1 else OneByOne()


def _of(run: int, named: Named) -> dict[str, Tensor]:
    return {name: tensor[run] for name, tensor in named.items()}


def _stack(rows: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    return rows[0][None] if len(rows) == 1 else torch.stack(tuple(rows))
