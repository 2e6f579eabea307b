"""Accuracy of every sub-network on one experience."""

from torch import Tensor

from acn_cl.depth.probing import Probe, probe_batches
from acn_cl.training.batches import DeviceData, Transform
from acn_cl.training.device import autocast
from acn_cl.training.network import Network

BATCH = 500  # images at once; without gradients there is memory for more than a training batch


def evaluate(network: Network, data: DeviceData, transform: Transform, experience: int, precision: str) -> Probe:
    """Score all sub-networks on ``data``, which belongs to ``experience``, in one pass and in the run's precision."""

    def head(features: Tensor) -> Tensor:
        logits: Tensor = network.heads(features, experience)
        return logits

    with autocast(data.labels.device, precision):
        return probe_batches(network.backbone, head, data.plain_batches(transform, BATCH))
