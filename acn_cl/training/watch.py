"""What is measured while a network trains, accumulated on the device and read once an epoch."""

import math
from collections.abc import Callable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from acn_cl.training.network import Network


class Diverged(Exception):
    """The loss or the gradient is no longer a number: the run ends here, with what it has."""


def problem_of(loss: float, norms: list[float], experience: int, epoch: int) -> Diverged | None:
    """What is wrong with an epoch's mean loss or the gradient's norm at a layer; ``None`` for numbers."""
    where = f"in experience {experience}, epoch {epoch}"
    if not math.isfinite(loss):
        return Diverged(f"the loss is {loss} {where}; try a lower optimizer.lr")
    if wild := [layer for layer, norm in enumerate(norms) if not math.isfinite(norm)]:
        return Diverged(f"the gradient is not finite at layer {wild[0]} {where}; try a lower optimizer.lr, or fp32")
    return None


class LayerWatch(SupervisedPlugin):
    """Gradient norms by layer, and the loss.

    Stands before the strategy among the plug-ins, so that it sees the gradient of the loss alone.

    Args:
        on_epoch: called after each epoch with experience, epoch, mean loss in nats, and the gradient's norm at each
            layer (embedding, blocks 1..L, the rest), the mean over the epoch's steps.
    """

    def __init__(self, on_epoch: Callable[[int, int, float, list[float]], None]) -> None:
        super().__init__()
        self._on_epoch = on_epoch

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        network: Network = strategy.model
        named = dict(network.named_parameters())
        layers = layer_of_parameters(network)
        self._parameters = [named[name] for name in layers]
        self._layers = torch.tensor(list(layers.values()), device=strategy.device)
        self._count = network.backbone.depth + 2

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self._norms = torch.zeros(self._count, device=strategy.device)
        self._loss = torch.zeros((), device=strategy.device)
        self._steps = 0

    def sums(self) -> dict[str, Tensor]:
        """What the epoch so far adds up to; for :meth:`load_sums`. Empty before the first epoch."""
        if not hasattr(self, "_norms"):
            return {}
        return {"norms": self._norms, "loss": self._loss, "steps": torch.tensor(self._steps)}

    def load_sums(self, sums: dict[str, Tensor]) -> None:
        """Go on with an epoch that is half over."""
        self._norms = sums["norms"].to(self._norms)
        self._loss = sums["loss"].to(self._loss)
        self._steps = int(sums["steps"])

    @torch.no_grad()
    def after_backward(self, strategy: Any, **_: Any) -> None:
        grads = [p.grad for p in self._parameters]
        present = [i for i, g in enumerate(grads) if g is not None]
        norms = torch.stack(torch._foreach_norm([grads[i] for i in present]))
        layers = self._layers if len(present) == len(grads) else self._layers[present]
        squares = torch.zeros_like(self._norms).index_add_(0, layers, norms.to(self._norms.dtype) ** 2)
        self._norms += squares.sqrt()
        self._loss += strategy.loss.detach().squeeze()  # Avalanche's loss has the shape (1,)
        self._steps += 1

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        loss, *norms = (torch.cat([self._loss[None], self._norms]) / max(1, self._steps)).tolist()
        experience, epoch = strategy.experience.current_experience, strategy.clock.train_exp_epochs
        if (problem := problem_of(loss, norms, experience, epoch)) is not None:
            raise problem
        self._on_epoch(experience, epoch, loss, norms)


class StepEvaluation(SupervisedPlugin):
    """Calls ``evaluate(experience, step)`` after every ``every`` steps of an experience."""

    def __init__(self, every: int, evaluate: Callable[[int, int], None]) -> None:
        super().__init__()
        self._every, self._evaluate = every, evaluate

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        step = strategy.clock.train_exp_iterations + 1  # Avalanche's clock counts this one after all plug-ins
        if step % self._every == 0:
            self._evaluate(strategy.experience.current_experience, step)


def layer_of_parameters(network: Network) -> dict[str, int]:
    """Name of each of a network's parameters -> 0 embedding, 1..L blocks, L+1 final norm and heads."""
    backbone = network.backbone
    layers = {f"backbone.{name}": layer for name, layer in backbone.layer_of_parameters().items()}
    return {name: layers.get(name, backbone.depth + 1) for name, _ in network.named_parameters()}


def importance_by_layer(network: Network, importance: dict[str, Tensor]) -> tuple[list[float], float]:
    """Sum of a regulariser's importance at each layer (L+2 of them), and its smallest single value."""
    totals = [0.0] * (network.backbone.depth + 2)
    layers = layer_of_parameters(network)
    for name, value in importance.items():
        totals[layers[name]] += float(value.sum(dtype=torch.float64))
    return totals, min(float(value.min()) for value in importance.values())
