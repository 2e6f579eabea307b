"""What a stack's strategy does at a step: nothing, or a regulariser's pull on the stacked parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def can_stack(strategy: Any) -> bool:
    """Whether a strategy needs parameters and gradients only, so that it works on a stack as it is.

    Those are the plug-ins around a regulariser, and those that do nothing whatever their options (``naive``).
    """
    return hasattr(strategy, "regulariser") or getattr(strategy, "inert", None) == {}


def is_active(strategy: Any) -> bool:
    """Whether it does anything: λ = 0 is inert. A stack never mixes the two."""
    return bool(getattr(strategy, "active", False))


class StackStrategy:
    """One strategy for all runs; only λ may differ between them.

    The regulariser works on tensors (R, ...) without knowing it. Its pull is proportional to λ: where λ differs, it
    computes the pull of λ = 1, which is then multiplied by each run's own.

    Args:
        strategies: the runs' plug-ins, for which :func:`can_stack` holds.
        device: where the parameters are.
    """

    def __init__(self, strategies: Sequence[Any], device: torch.device) -> None:
        self.plugin = strategies[0]
        self.active = is_active(self.plugin)
        self._lambdas: Tensor | None = None
        if self.active:
            self._regulariser = self.plugin.regulariser
            lambdas = [s.regulariser.lambda_ for s in strategies]
            if len(set(lambdas)) > 1:
                self._regulariser.lambda_ = 1.0
                self._lambdas = torch.tensor(lambdas, dtype=torch.get_default_dtype(), device=device)

    def begin(self, experience: int, parameters: Mapping[str, Tensor]) -> None:
        """An experience begins, or is gone on with."""
        fresh = self.plugin.begun != experience
        self.plugin.begun = experience
        self._parameters = list(parameters.values())
        if self.active:
            self.plugin.names = list(parameters)
            if fresh:
                self._regulariser.begin(self._parameters)

    def pull(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """The loss's gradients, ``None`` where there is none, with the penalty's added: every tensor (R, ...)."""
        if not self.active:
            return gradients
        self._regulariser.before_step(self._parameters, gradients)
        pull = self._regulariser.pull(self._parameters)
        if self._lambdas is not None and pull:
            torch._foreach_mul_(pull, [self._lambdas.view(-1, *[1] * (p.dim() - 1)).to(p.dtype) for p in pull])
        both = [(g, p) for g, p in zip(gradients, pull, strict=False) if g is not None]
        if both:
            torch._foreach_add_([g for g, _ in both], [p for _, p in both])
        # A pulled parameter is one that a step moves: where the loss gave no gradient, the pull is all of it.
        return [p if g is None else g for g, p in zip(gradients, pull, strict=False)] + gradients[len(pull) :]

    def after_step(self, gradients: Sequence[Tensor | None]) -> None:
        """The optimiser has moved the parameters by these gradients."""
        if self.active:
            self._regulariser.after_step(self._parameters, gradients)

    def end(self, gradients: Any) -> None:
        """The experience is over; ``gradients`` is the stack's gradient source."""
        if self.active:
            self._regulariser.end(self._parameters, gradients)

    def importance(self) -> dict[str, Tensor]:
        """By parameter name, (R, ...) each; empty before the end of the first experience."""
        importance: dict[str, Tensor] = getattr(self.plugin, "importance", dict)()
        return importance

    def of_run(self, run: int) -> dict[str, Any]:
        """One run's state, as its plug-in's ``state`` would give it alone."""
        return {k: v[run] if isinstance(v, Tensor) else v for k, v in self.plugin.state().items()}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take over every run's state; its tensors are on the parameters' device."""
        first = states[0]
        self.plugin.load_state(
            {k: torch.stack([s[k] for s in states]) if isinstance(v, Tensor) else v for k, v in first.items()}
        )
