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


SMALL_STEP = 3e8
"""Floating-point operations of one run's forward pass on one batch below which a CPU batches the runs: what a call
costs besides computing weighs more then than what batched products of small matrices lose. See ``docs/speed.md``."""


def choose_per_run(device: torch.device, runs: int, forward_flops: float) -> PerRun:
    """The faster way on this device, by measurement."""
    batched = device.type != "cpu" or forward_flops < SMALL_STEP
    return Vmapped() if batched and runs > 1 else OneByOne()


def _of(run: int, named: Named) -> dict[str, Tensor]:
    return {name: tensor[run] for name, tensor in named.items()}


def _stack(rows: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    return rows[0][None] if len(rows) == 1 else torch.stack(tuple(rows))
