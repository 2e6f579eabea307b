"""Regularisation strategies: the interface of their mathematics, and the one plug-in that drives them all.

A :class:`Regulariser` works on lists of tensors and knows nothing of loops, models or how many runs are stacked; its
updates act element by element. :class:`RegulariserPlugin` calls it from Avalanche's training loop, ours or theirs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import avalanche_forward
from torch import Tensor, nn
from torch.utils.data import DataLoader

Gradients = list[Tensor]
"""One gradient a parameter, in the parameters' order; zeros where the loss does not depend on it."""


class Regulariser(ABC):
    """A quadratic pull towards earlier weights, weighed by each weight's importance.

    The list of parameters only grows, at its end, from one experience to the next (heads are added); a tensor may
    also grow along its first axis. Parameters that joined after the last experience are not pulled.
    """

    lambda_: float
    """Strength of the penalty; 0 leaves training exactly as it is without the strategy."""

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
    def end(self, parameters: Sequence[Tensor], gradients: Callable[[], Iterable[Gradients]]) -> None:
        """An experience is over.

        Args:
            parameters: as they are now.
            gradients: called to iterate over the gradients of the mean loss of each mini-batch of the experience's
                training images, without augmentation, the model in evaluation mode.
        """

    @abstractmethod
    def importance(self) -> list[Tensor]:
        """What the penalty weighs each parameter's displacement with, at the end of the last experience."""


class RegulariserPlugin(SupervisedPlugin):
    """Runs one :class:`Regulariser` in an Avalanche strategy.

    The penalty's gradient is added to ``parameter.grad`` in place, so no graph is built for it. From the second
    experience on a step moves every head seen so far, as in Avalanche: a gradient of zero is still a gradient.
    Batch-norm parameters are left out, as Avalanche's Synaptic Intelligence does.
    """

    def __init__(self, regulariser: Regulariser) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.names: list[str] = []

    @property
    def active(self) -> bool:
        """Whether the strategy does anything: λ = 0 is inert, bit for bit."""
        return self.regulariser.lambda_ > 0

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        found = _trainable(strategy.model)
        self.names += [name for name in found if name not in self.names]
        self._parameters = [found[name] for name in self.names]
        if self.active:
            self.regulariser.begin(self._parameters)

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        if not self.active:
            return
        parameters = self._parameters
        self.regulariser.before_step(parameters, [p.grad for p in parameters])
        pull = self.regulariser.pull(parameters)
        if pull:
            torch._foreach_add_([_gradient_of(p) for p in parameters[: len(pull)]], pull)

    @torch.no_grad()
    def after_update(self, strategy: Any, **_: Any) -> None:
        if self.active:
            self.regulariser.after_step(self._parameters, [p.grad for p in self._parameters])

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        if self.active:
            self.regulariser.end(self._parameters, lambda: _batch_gradients(strategy, self._parameters))

    def importance(self) -> dict[str, Tensor]:
        """Importance by parameter name; empty before the end of the first experience."""
        return dict(zip(self.names, self.regulariser.importance(), strict=False)) if self.active else {}


def _gradient_of(parameter: Tensor) -> Tensor:
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


def _batch_gradients(strategy: Any, parameters: Sequence[Tensor]) -> Iterable[Gradients]:
    """Gradients of the mean loss of each un-augmented mini-batch; ``parameter.grad`` is not touched."""
    was_training = strategy.model.training
    strategy.model.eval()
    for loss in _plain_losses(strategy):
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        yield [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    strategy.model.train(was_training)


def _plain_losses(strategy: Any) -> Iterable[Tensor]:
    """The mean loss of each mini-batch of the experience's training images without augmentation."""
    if hasattr(strategy, "plain_losses"):  # our own template: the images are on the device already
        yield from strategy.plain_losses()
        return
    dataset = strategy.experience.dataset.eval()
    for batch in DataLoader(dataset, strategy.train_mb_size, collate_fn=getattr(dataset, "collate_fn", None)):
        images, labels, task_labels = (part.to(strategy.device) for part in (batch[0], batch[1], batch[-1]))
        yield strategy._criterion(avalanche_forward(strategy.model, images, task_labels), labels)


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
