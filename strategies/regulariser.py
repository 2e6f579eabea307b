"""Regularisation strategies: the interface of their mathematics, and the one plug-in that drives them all.

A :class:`Regulariser` works on lists of tensors and knows nothing of loops, models or how many runs are stacked; its
updates act element by element. :class:`RegulariserPlugin` calls it from Avalanche's training loop, ours or theirs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from acn_cl.strategies.gradients import ExperienceGradients
from acn_cl.strategies.plugin import State, StrategyPlugin

Gradients = list[Tensor]
"""n gradients of every parameter, (n, *shape) each, in the parameters' order; zeros where nothing depends on it."""


class GradientSource(Protocol):
    """Gradients over the training images of the experience that is over, the model in evaluation mode."""

    def __call__(
        self,
        of: Literal["loss", "sampled-loss", "output"] = "loss",
        *,
        each: Literal["batch", "image"] = "batch",
        augmented: bool = False,
    ) -> Iterable[Gradients]:
        """Go once over the images.

        Args:
            of: the loss; the loss with a label drawn from the network's own prediction; or the squared L2 norm of the
                logits.
            each: one gradient a mini-batch, of the mean over it, or one an image.
            augmented: whether the images are augmented as in training.
        """


class Regulariser(ABC):
    """A quadratic pull towards earlier weights, weighed by each weight's importance.

    The list of parameters only grows, at its end, from one experience to the next (heads are added); a tensor may
    also grow along its first axis. Parameters that joined after the last experience have no importance yet.
    """

    lambda_: float
    """Strength of the penalty; 0 leaves training exactly as it is without the strategy."""
    signed: bool = False
    """Whether an importance may be negative: such a weight is pushed away."""
    kept: ClassVar[tuple[str, ...]]
    """Attributes that make up the state: lists of tensors, one a parameter, and plain numbers."""

    @abstractmethod
    def begin(self, parameters: Sequence[Tensor]) -> None:
        """An experience starts with these parameters."""

    @abstractmethod
    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        """The penalty's value at these parameters, a scalar (λ included)."""

    @abstractmethod
    def pull(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The penalty's gradient for the first ``len(result)`` parameters; empty before there is anything to keep."""

    def before_step(self, parameters: Sequence[Tensor], task_gradients: Sequence[Tensor | None]) -> None:  # noqa: B027
        """The loss's own gradients are known, the penalty's not yet added."""

    def after_step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:  # noqa: B027
        """The optimiser has moved the parameters by these gradients."""

    @abstractmethod
    def end(self, parameters: Sequence[Tensor], gradients: GradientSource) -> None:
        """An experience is over.

        Args:
            parameters: as they are now.
            gradients: called to go over the gradients at the experience's training images.
        """

    @abstractmethod
    def importance(self) -> list[Tensor]:
        """What the penalty weighs each parameter's displacement with, at the end of the last experience."""

    def state(self) -> State:
        """The attributes named in ``kept``; the tensors of a list ``a`` are called ``a.0``, ``a.1`` …"""
        state: State = {}
        for name in self.kept:
            value = getattr(self, name)
            state |= {f"{name}.{i}": t for i, t in enumerate(value)} if isinstance(value, list) else {name: value}
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        for name in self.kept:
            if isinstance(getattr(self, name), list):
                count = sum(key.rpartition(".")[0] == name for key in state)
                setattr(self, name, [state[f"{name}.{i}"] for i in range(count)])
            else:
                setattr(self, name, state[name])


class RegulariserPlugin(StrategyPlugin):
    """Runs one :class:`Regulariser` in an Avalanche strategy, ours or any other.

    The penalty's gradient is added to ``parameter.grad`` in place, so no graph is built for it. From the second
    experience on a step moves every head seen so far, as in Avalanche: a gradient of zero is still a gradient.
    Batch-norm parameters are left out, as Avalanche's Synaptic Intelligence does.
    """

    moves = "every head seen"
    inert: ClassVar[Mapping[str, Any]] = {"lambda_": 0.0}
    in_parts = True

    def __init__(self, regulariser: Regulariser) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.names: list[str] = []
        self.keeps_weights = sum(isinstance(getattr(regulariser, name), list) for name in regulariser.kept)

    @property
    def active(self) -> bool:
        """Whether the strategy does anything: λ = 0 is inert, bit for bit."""
        return self.regulariser.lambda_ > 0

    @property
    def signed(self) -> bool:
        """Whether an importance may be negative."""
        return self.regulariser.signed

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        found = _trainable(strategy.model)
        self.names += [name for name in found if name not in self.names]
        self._parameters = [found[name] for name in self.names]
        if self.begins(strategy) and self.active:
            self.regulariser.begin(self._parameters)

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        if not self.active:
            return
        parameters = self._parameters
        self.regulariser.before_step(parameters, [p.grad for p in parameters])
        pull = self.regulariser.pull(parameters)
        if pull:
            torch._foreach_add_([gradient_of(p) for p in parameters[: len(pull)]], pull)

    @torch.no_grad()
    def after_update(self, strategy: Any, **_: Any) -> None:
        if self.active:
            self.regulariser.after_step(self._parameters, [p.grad for p in self._parameters])

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        if self.active:
            named = dict(zip(self.names, self._parameters, strict=True))
            self.regulariser.end(self._parameters, ExperienceGradients(strategy, named))

    def importance(self) -> dict[str, Tensor]:
        """Importance by parameter name; empty before the end of the first experience."""
        return dict(zip(self.names, self.regulariser.importance(), strict=False)) if self.active else {}

    def state(self) -> State:
        return super().state() | {"names": self.names} | self.regulariser.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.names = list(state["names"])
        self.regulariser.load_state(state)


def gradient_of(parameter: Tensor) -> Tensor:
    """The parameter's gradient, made zero where there was none: a pulled parameter is one that a step moves."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    normed = {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name: p for name, p in model.named_parameters() if p.requires_grad and name not in normed}


def grown(state: list[Tensor], parameters: Sequence[Tensor], like: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``state`` with an entry for every parameter: ``like(parameter)`` where it is new, or in its new rows."""
    result = []
    for index, parameter in enumerate(parameters):
        fresh = like(parameter.detach())
        if index < len(state):
            old = state[index]
            fresh[tuple(slice(0, size) for size in old.shape)] = old
        result.append(fresh)
    return result
