"""Steps that ``torch.compile`` makes faster, trusted where they give what the eager step gives."""

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

Named = Mapping[str, Tensor]

Step = Callable[..., tuple[Tensor, list[Tensor]]]
"""``step(moved, fixed, *inputs)``: the losses (R,), and their gradients by ``moved``, in its order."""

Backend = str | Callable[..., Any]
"""As ``torch.compile`` takes it."""

AGREES = 0.5
"""Largest relative distance of a gradient from the eager one: a parameter whose gradient is lost or garbage is 0.7 away
or more. Rounding to bf16 alone makes it 0.03 in Mixers of 5 layers, and 0.3 in an AC-Mixer of 15 before it has learned
anything, where no skip keeps a disturbance from growing from layer to layer."""
NOISE = 0.01
"""Share of the whole gradient's norm that is added to each parameter's, so that a gradient which is nothing but
rounding agrees with another such."""
MOST = 10_000
"""Graphs of one process: a sweep may have many sizes. At torch's own limit, 8, a full graph raises."""


class Compiler:
    """Compiles steps, and knows whether any was used.

    Args:
        backend: torch.compile's.
        often: how many batches of a size there must be for its steps to be compiled; the others stay eager.
        note: told in one line why a step stays eager that should not.
    """

    def __init__(
        self, backend: Backend = "inductor", often: int = 1, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self._backend, self._often, self._note = backend, often, note
        self._steps: list[Compiled] = []

    @property
    def in_use(self) -> bool:
        """Whether some steps so far were computed by compiled code."""
        return any(step.in_use for step in self._steps)

    def sizes(self, calls: Mapping[int, int]) -> list[int]:
        """Images of the batches that are worth compiling for, of images of a batch -> how many such there will be."""
        return [images for images, times in calls.items() if times >= self._often]

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which is compiled as one graph for each shape that it is called with.

        The first call in a process takes more than a second even if nothing is ever compiled.
        """
        compiled: Callable[..., Any] = torch.compile(
            function, backend=self._backend, fullgraph=True, dynamic=False
        )  # with breaks in the graph torch would go on silently
        return compiled

    def step(self, eager: Step, fast: Step, sizes: Collection[int]) -> Step:
        """``eager``, computed by ``fast`` where that pays and is right.

        Args:
            eager: what is to be computed.
            fast: the same by something that is :meth:`wrapped`.
            sizes: as :meth:`sizes` gives them.
        """
        self._steps.append(Compiled(eager, fast, sizes, self._note))
        return self._steps[-1]


class Compiled:
    """Calls the compiled step, but with batches of which it failed or erred.

    Compiled code may be wrong and say nothing: for bf16 on a CPU, g++ 12.2 loses whole blocks of weight gradients of
    some sizes (``docs/speed.md``). So the first step of every size is computed both ways, and compared.

    Args: as for :meth:`Compiler.step`, and who is told.
    """

    def __init__(self, eager: Step, fast: Step, sizes: Collection[int], note: Callable[[str], None]) -> None:
        self._eager, self._fast, self._sizes, self._note = eager, fast, sizes, note
        self._chosen: dict[Hashable, Step] = {}

    @property
    def in_use(self) -> bool:
        """Whether some steps so far were computed by compiled code."""
        return any(step is not self._eager for step in self._chosen.values())

    def __call__(self, moved: Named, fixed: Named, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        shapes = tuple(t.shape for t in (*moved.values(), *fixed.values(), *inputs))
        if shapes not in self._chosen:
            self._chosen[shapes] = self._choose(moved, fixed, *inputs)
        return self._chosen[shapes](moved, fixed, *inputs)

    def _choose(self, moved: Named, fixed: Named, *inputs: Tensor) -> Step:
        images = inputs[0].shape[1]
        if images not in self._sizes or self._fast is self._eager:
            return self._eager
        expected = _flat(self._eager(moved, fixed, *inputs))
        try:
            with torch._dynamo.config.patch(recompile_limit=MOST, accumulated_recompile_limit=MOST):
                found = _flat(self._fast(moved, fixed, *inputs))
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a compiler may raise anything; nothing else is at fault, as the eager step shows
            self._fast = self._eager
            reason = " ".join(str(error).split())[:200]
            self._note(f"the step is computed eagerly, since torch.compile failed ({type(error).__name__}: {reason})")
            return self._eager
        if (apart := distance(found, expected)) <= AGREES:
            return self._fast
        self._note(f"steps of {images} images are computed eagerly: compiled, their gradients are off by {apart:.2g}")
        return self._eager


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest ``|f - e| / (|e| + NOISE |all e|)`` of tensors f and e, in 2-norms; nan if a number is none."""
    apart = torch.stack(torch._foreach_norm(torch._foreach_sub(found, expected)))
    norms = torch.stack(torch._foreach_norm(expected))
    return float((apart / (norms + NOISE * norms.norm())).max())


def _flat(result: tuple[Tensor, list[Tensor]]) -> list[Tensor]:
    return [result[0], *result[1]]
