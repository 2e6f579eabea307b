"""One function for every run of a stack: the two ways to compute it, and which is taken where.

Tensors carry a leading run axis. A function sees one run's tensors, without it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.func import grad_and_value, vmap

Named = Mapping[str, Tensor]
Loss = Callable[..., Tensor]
"""``loss(moved, fixed, *inputs)``: parameters to differentiate by, the others, and tensors; a scalar."""


Step = Callable[..., tuple[Tensor, list[Tensor]]]
"""``step(moved, fixed, *inputs)``: the losses (R,), and their gradients by ``moved``, in its order."""


Backend = str | Callable[..., Any]
"""As ``torch.compile`` takes it."""


class PerRun(Protocol):
    """How a function is computed for all runs. R runs; every tensor given and returned is (R, ...)."""

    def prepared(self, loss: Loss) -> Step:
        """What computes ``loss`` and its gradients many times; may be compiled when it is first called."""

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As a :data:`Step`, once."""

    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        """``function(named, *inputs)`` without gradients."""


class OneByOne:
    """Run after run. On a CPU one run of the usual size keeps all cores busy, and its activations fit the caches."""

    def prepared(self, loss: Loss) -> Step:
        return partial(self.gradients, loss)

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
        backend: torch.compile's for steps; ``None``: they are not compiled.
        note: told in one line when something could not be compiled and is computed eagerly instead.
    """

    def __init__(self, backend: Backend | None = None, note: Callable[[str], None] = lambda line: None) -> None:
        self._backend, self._note = backend, note

    def prepared(self, loss: Loss) -> Step:
        if self._backend is None:
            return partial(self.gradients, loss)
        return _Compiled(partial(self.gradients, loss), self._backend, self._note)

    def gradients(self, loss: Loss, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        gradients, values = vmap(grad_and_value(loss))(moved, fixed, *inputs)
        return values, [gradients[name] for name in moved]

    @torch.no_grad()
    def values(self, function: Callable[..., Tensor], named: Named, *inputs: Tensor) -> Tensor:
        result: Tensor = vmap(function)(named, *inputs)
        return result


class _Compiled:
    """A step as one compiled graph a shape, or eager from the first time on that this fails."""

    def __init__(self, step: Step, backend: Backend, note: Callable[[str], None]) -> None:
        self._eager, self._note = step, note
        # One graph or an error: with breaks in it, or after too many recompilations, torch would go on silently.
        self._step: Step = torch.compile(step, backend=backend, fullgraph=True, dynamic=False)

    def __call__(self, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
        try:
            return self._step(*arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            self._note(f"the step is computed eagerly, since torch.compile failed ({type(error).__name__}: {reason})")
            self._step = self._eager
            return self._step(*arguments)


def choose_per_run(device: torch.device, runs: int, note: Callable[[str], None] = lambda line: None) -> PerRun:
    """The faster way on this device.

    On a CPU neither batching nor compiling earned its cost at any size tried: see ``docs/speed.md``.

    Args:
        device: where the runs are.
        runs: R.
        note: as for :class:`Vmapped`.
    """
    match device.type:
        case "cuda":
            return Vmapped("inductor", note)
        case "cpu":
            return OneByOne()
        case _:
            return Vmapped() if runs > 1 else OneByOne()


def _of(run: int, named: Named) -> dict[str, Tensor]:
    return {name: tensor[run] for name, tensor in named.items()}


def _stack(rows: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    return rows[0][None] if len(rows) == 1 else torch.stack(tuple(rows))
