"""One function for every run of a stack: the two ways to compute it, and which is taken where.

Tensors carry a leading run axis. A function sees one run's tensors, without it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from acn_cl.training.compiled import Compiler, Named, Step
from acn_cl.training.device import has_amx

Loss = Callable[..., Tensor]
"""``loss(moved, fixed, *inputs)``: parameters to differentiate by, the others, and tensors; a scalar."""

PAYS_FROM = 5_000
"""Steps from which compiling pays on a CPU: it takes a minute, or seconds where torch's cache has the code, and saves
a tenth to a fifth of each (``docs/speed.md``)."""


class PerRun(Protocol):
    """How a function is computed for all runs. R runs; every tensor given and returned is (R, ...)."""

    compiler: Compiler | None
    """What may compile steps."""

    def prepared(self, loss: Loss, calls: Mapping[int, int]) -> Step:
        """What computes ``loss`` and its gradients many times; may be compiled when it is first called.

        Args:
            loss: of one run.
            calls: images of a batch -> how many batches of so many there will be.
        """

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As a :data:`Step`, once."""

    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        """``function(named, *inputs)`` without gradients."""


class OneByOne:
    """Run after run. On a CPU one run of the usual size keeps all cores busy, and its activations fit the caches.

    Args:
        compiler: of steps; ``None``: they are not compiled.
    """

    def __init__(self, compiler: Compiler | None = None) -> None:
        self.compiler = compiler

    def prepared(self, loss: Loss, calls: Mapping[int, int]) -> Step:
        eager = partial(self.gradients, loss)
        if self.compiler is None or not (sizes := self.compiler.sizes(calls)):
            return eager
        return self.compiler.step(eager, partial(_one_by_one, self.compiler.wrapped(grad_and_value(loss))), sizes)

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
    """All runs in one batched computation: few large kernels where single runs would be many small ones.

    Args:
        compiler: of steps; ``None``: they are not compiled.
    """

    def __init__(self, compiler: Compiler | None = None) -> None:
        self.compiler = compiler

    def prepared(self, loss: Loss, calls: Mapping[int, int]) -> Step:
        eager = partial(self.gradients, loss)
        if self.compiler is None or not (sizes := self.compiler.sizes(calls)):
            return eager
        return self.compiler.step(eager, self.compiler.wrapped(eager), sizes)

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        gradients, values = vmap(grad_and_value(loss))(moved, fixed, *inputs)
        return values, [gradients[name] for name in moved]

    @torch.no_grad()
    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        result: Tensor = vmap(function)(named, *inputs)
        return result


def choose_per_run(
    device: torch.device,
    precision: str,
    runs: int,
    note: Callable[[str], None] = lambda line: None,
    often: int = PAYS_FROM,
) -> PerRun:
    """The faster way on this device.

    On a CPU batching did not earn its cost at any size tried, and compiling does in bf16 where AMX multiplies, so that
    everything else takes most of a step: see ``docs/speed.md``.

    Args:
        device: where the runs are.
        precision: ``fp32`` or ``bf16``.
        runs: R.
        note: told in one line when something that should be compiled is computed eagerly instead.
        often: how many steps of a batch size there must be for a CPU to compile them.
    """
    match device.type:
        case "cuda":
            return Vmapped(Compiler(note=note))
        case "cpu":
            return OneByOne(Compiler(often=often, note=note) if precision == "bf16" and has_amx() else None)
        case _:
            return Vmapped() if runs > 1 else OneByOne()


def _one_by_one(
    function: Callable[..., tuple[Named, Tensor]], moved: Named, fixed: Named, *inputs: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """A step by ``function``, which gives the gradients and the loss of one run."""
    values, rows = [], []
    for run in range(len(inputs[0])):
        gradients, value = function(_of(run, moved), _of(run, fixed), *(tensor[run] for tensor in inputs))
        rows.append([gradients[name] for name in moved])
        values.append(value)
    return _stack(values), [_stack(gradients) for gradients in zip(*rows, strict=True)]


def _of(run: int, named: Named) -> dict[str, Tensor]:
    return {name: tensor[run] for name, tensor in named.items()}


def _stack(rows: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    return rows[0][None] if len(rows) == 1 else torch.stack(tuple(rows))
