"""The networks of a stack: one module that says what is computed, and every parameter with a leading run axis."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from acn_cl.depth.probing import scores
from acn_cl.training.device import autocast
from acn_cl.training.loss import cross_entropy
from acn_cl.training.network import Network


class StackedNetwork:
    """R networks of the same shape.

    Args:
        networks: one a run, as initialised for it, on any device. Their heads go on to give the initial values of the
            blocks that are added; their backbones are not needed any more.
        device: where the stacked parameters go.
        precision: ``fp32`` or ``bf16``.
        smoothing: label smoothing of the loss.
    """

    def __init__(self, networks: Sequence[Network], device: torch.device, precision: str, smoothing: float) -> None:
        self.device, self._precision, self._smoothing = device, precision, smoothing
        self.template = _without_memory(networks[0])
        self._twins = _second_names(self.template)
        self._heads = [network.heads for network in networks]
        self._alone = self.template.heads.scenario == "task-incremental" and not self.template.heads.common_labels
        self._answerer = copy.deepcopy(self.template) if self._alone else self.template
        self.parameters = _stacked([dict(network.named_parameters()) for network in networks], device)

    def grow(self, experience: int) -> None:
        """Add the head blocks that training on ``experience`` needs."""
        for heads in self._heads:
            heads.grow(experience, torch.device("cpu"))
        self.template.heads.grow(experience, torch.device("meta"))
        self._answerer.heads.grow(0 if self._alone else experience, torch.device("meta"))
        fresh = [{f"heads.{name}": p for name, p in heads.named_parameters()} for heads in self._heads]
        new = {name for name, _ in self.template.named_parameters()} - self.parameters.keys()
        self.parameters |= _stacked([{n: p for n, p in run.items() if n in new} for run in fresh], self.device)

    def answering(self, experience: int) -> tuple[dict[str, str], int]:
        """Which parameters answer ``experience``, by the name to call them by, and the index to call the network with.

        What the methods below take. A head that answers alone is called by the first one's name: one compiled function
        then serves all experiences whose heads have one size.
        """
        if not self._alone:
            return {name: name for name in self.parameters}, experience
        names = {name: name for name in self.parameters if not name.startswith("heads.")}
        own = f"heads.blocks.{experience}."
        return names | {n.replace(own, "heads.blocks.0."): n for n in self.parameters if n.startswith(own)}, 0

    def loss(self, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, index: int) -> Tensor:
        """One run's mean cross-entropy, in nats: images (B, C, H, W), labels (B,) -> ()."""
        return self.mean_loss(self.logits(parameters, images, index), labels)

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats, label smoothing as the spec says: (B, classes), (B,) -> ()."""
        return cross_entropy(logits, labels, self._smoothing)

    def mixed_loss(
        self, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, others: Tensor, share: Tensor,
        index: int,
    ) -> Tensor:  # fmt: skip
        """The same of images that CutMix has made of two: the others' labels (B,), the share () of the first."""
        logits = self.logits(parameters, images, index)
        return share * self.mean_loss(logits, labels) + (1 - share) * self.mean_loss(logits, others)

    def logits(self, parameters: Mapping[str, Tensor], images: Tensor, index: int) -> Tensor:
        """One run's answers in the run's precision: (B, C, H, W) -> (B, classes)."""
        with autocast(self.device, self._precision):
            answers: Tensor = self._call(self._answerer, parameters, (images, index))
        return answers

    def scores(self, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, index: int) -> Tensor:
        """One run's sub-networks 0 … L on (B, C, H, W), in the run's precision: as ``acn_cl.depth.probing.scores``."""
        with autocast(self.device, self._precision):
            logits = self.ask(_every_depth, parameters, images, index)
        return scores(logits, labels)

    def ask(self, question: Callable[..., Tensor], parameters: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """``question(network, *inputs)`` of the network that has one run's parameters; no autocast."""
        named = {f"network.{name}": p for name, p in parameters.items()}
        answer: Tensor = self._call(_Asked(self._answerer, question), named, inputs)
        return answer

    def _call(self, module: nn.Module, parameters: Mapping[str, Tensor], inputs: tuple[Any, ...]) -> Any:
        # To look at every call for parameters that are shared takes longer than to swap them.
        return functional_call(module, dict(parameters), inputs, tie_weights=bool(self._twins))

    def moved_names(self, images: Tensor, labels: Tensor, experience: int) -> list[str]:
        """Parameters that the loss of ``experience`` depends on; the others have no gradient, which is not a zero one.

        Args:
            images: a few of the first run's, (B, C, H, W).
            labels: (B,).
        """
        aliases, index = self.answering(experience)
        leaves = {alias: self.parameters[name][0].detach().requires_grad_() for alias, name in aliases.items()}
        loss = self.loss(leaves, images, labels, index)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return [name for name, gradient in zip(aliases.values(), gradients, strict=True) if gradient is not None]

    def of_run(self, run: int) -> dict[str, Tensor]:
        """A ``state_dict`` of one run: views of the stack's parameters, a shared one under each of its names."""
        every = self.parameters | {twin: self.parameters[name] for twin, name in self._twins.items()}
        return {name: tensor[run] for name, tensor in every.items()}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over the runs' stacked ``state_dict``, (R, ...) each."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])


class _Asked(nn.Module):
    """A function of a network as a module, which is what ``functional_call`` takes."""

    def __init__(self, network: Network, question: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self._question = question

    def forward(self, *inputs: Any) -> Tensor:
        return self._question(self.network, *inputs)


def _every_depth(network: Network, images: Tensor, experience: int) -> Tensor:
    """Logits at every depth, (L + 1, B, classes)."""
    features = network.backbone.forward_depths(images)
    logits: Tensor = network.heads(features.flatten(0, 1), experience)
    return logits.view(*features.shape[:2], -1)


def _without_memory(network: Network) -> Network:
    """A copy on the meta device; a parameter that two modules share is shared in it too, which ``to`` does not do."""
    shells: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in network.parameters()}
    shells |= {id(b): b.to("meta") for b in network.buffers()}
    return copy.deepcopy(network, shells)


def _second_names(network: Network) -> dict[str, str]:
    """Every further name of a parameter that has several -> its first, under which it is trained."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    named = network.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in named if name != first[id(p)]}


def _stacked(runs: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.stack([run[name].detach().to(device) for run in runs]) for name in runs[0]}
