"""What the layers are like when an experience has been learned: how gradients reach them, how far they have drifted.

Measured in float32, on a few images that are the same for every run of a seed, in evaluation mode. Nothing is drawn at
random and no gradient is left behind, so training goes on as if nothing had happened. R runs, L layers, B images.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor

from acn_cl.backbones.layered import LayeredBackbone
from acn_cl.depth.gradients import direct_and_full, has_direct_path
from acn_cl.depth.probing import evaluation_mode
from acn_cl.depth.similarity import linear_cka_each
from acn_cl.training.batches import Transform
from acn_cl.training.network import Network
from acn_cl.training.per_run import PerRun
from acn_cl.training.stack_data import StackedPart
from acn_cl.training.stack_network import StackedNetwork

DRIFT_IMAGES = 512
"""Test images of the first experience at most, whose features are compared."""
GRADIENT_IMAGES = 128
"""Training images at most of the experience just learned, whose gradient is taken apart."""
FORWARD_BATCH, GRADIENT_BATCH = 128, 16  # images a run at once: in fp32, and no more memory than a training step
FEATURES = "probe.features"

Layers = list[list[float]]
"""For each run, a value for each layer."""


class Networks(Protocol):
    """The networks of R runs, as they are now."""

    has_direct_path: bool
    """Whether the gradient has a direct part, see :func:`acn_cl.depth.gradients.has_direct_path`."""

    def features(self, images: Tensor) -> Tensor:
        """Features of every depth: (R, B, C, H, W) -> (R, L + 1, B, d)."""

    def direct_and_full(self, images: Tensor, labels: Tensor, experience: int) -> Tensor:
        """As :func:`acn_cl.depth.gradients.direct_and_full`, of each run: (R, 2, L + 1)."""


class LayerProbe:
    """Direct-gradient share and drift (linear CKA) by layer.

    Args:
        networks: of the runs.
        first: the test part of the first experience.
        transform: the stream's.
    """

    def __init__(self, networks: Networks, first: StackedPart, transform: Transform) -> None:
        self._networks, self._transform = networks, transform
        self._first = _spread(first, DRIFT_IMAGES)
        self._learned: Tensor | None = None  # (R, L + 1, N, d): right after the first experience

    def after(self, experience: int, train: StackedPart, task: int) -> Mapping[str, Layers]:
        """Measure, right after an experience was learned.

        Args:
            experience: its index.
            train: its training part.
            task: the experience whose head answers.

        Returns:
            by quantity, as ``layers.parquet`` names it; those that are defined here.
        """
        found = {}
        if self._networks.has_direct_path:
            found["direct_gradient_share"] = self._direct_share(train, task)
        batches = self._first.plain_batches(self._transform, FORWARD_BATCH)
        now = torch.cat([self._networks.features(images).cpu() for images, _ in batches], 2)
        if experience == 0:
            self._learned = now
        elif self._learned is not None:  # else the run was begun before this was measured
            found["cka"] = [self._cka(*pair) for pair in zip(self._learned, now, strict=True)]
        return found

    def state(self, run: int) -> dict[str, Tensor]:
        """What one run needs to go on, by name; for :meth:`load`."""
        return {} if self._learned is None else {FEATURES: self._learned[run].clone()}

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from what :meth:`state` gave, of every run; other tensors may be among them."""
        if all(FEATURES in state for state in states):
            self._learned = torch.stack([state[FEATURES] for state in states])

    def _direct_share(self, train: StackedPart, task: int) -> Layers:
        """‖DG‖ / ‖FG‖ at 0 … L."""
        batches = _spread(train, GRADIENT_IMAGES).plain_batches(self._transform, GRADIENT_BATCH)
        each = [self._networks.direct_and_full(*batch, task) for batch in batches]
        squares = sum(each[1:], each[0])  # one after the other: to the last bit the same in a stack of any width
        share: Layers = (squares[:, 0] / squares[:, 1]).sqrt().tolist()
        return share

    def _cka(self, before: Tensor, after: Tensor) -> list[float]:
        """One run's, by depth. On the device of the images: in float64 it is a product of matrices as any other."""
        device = self._first.labels.device
        cka: list[float] = linear_cka_each(before.to(device), after.to(device)).tolist()
        return cka


class Alone:
    """One network, as a stack of one."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.has_direct_path = has_direct_path(network.backbone)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        with evaluation_mode(self._network):
            return _features(self._network, images[0])[None]

    @torch.no_grad()
    def direct_and_full(self, images: Tensor, labels: Tensor, experience: int) -> Tensor:
        with evaluation_mode(self._network):
            return _direct_and_full(self._network, images[0], labels[0], experience)[None]


class Stacked:
    """The networks of a stack."""

    def __init__(self, network: StackedNetwork, per_run: PerRun) -> None:
        self._network, self._per_run = network, per_run
        self.has_direct_path = has_direct_path(network.template.backbone)

    def features(self, images: Tensor) -> Tensor:
        backbone = {name: p for name, p in self._network.parameters.items() if name.startswith("backbone.")}
        return self._per_run.values(partial(self._network.ask, _features), backbone, images)

    def direct_and_full(self, images: Tensor, labels: Tensor, experience: int) -> Tensor:
        aliases, index = self._network.answering(experience)
        parameters = {alias: self._network.parameters[name] for alias, name in aliases.items()}
        ask = partial(self._network.ask, partial(_direct_and_full, experience=index))
        return self._per_run.values(ask, parameters, images, labels)


def _features(network: Network, images: Tensor) -> Tensor:
    return network.backbone.forward_depths(images)


def _direct_and_full(network: Network, images: Tensor, labels: Tensor, experience: int) -> Tensor:
    def head(features: Tensor) -> Tensor:
        logits: Tensor = network.heads(features, experience)
        return logits

    return direct_and_full(cast(LayeredBackbone, network.backbone), head, images, labels)


def _spread(part: StackedPart, most: int) -> StackedPart:
    """At most so many images of a part, spread evenly over it: a data set's images may lie sorted by class."""
    count = min(most, len(part))
    chosen = torch.arange(count, device=part.rows.device) * len(part) // count
    return StackedPart(part.images, part.rows[:, chosen], part.labels[:, chosen])
