"""Accuracy of every sub-network on one experience."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from acn_cl.depth.probing import Probe, probe_batches
from acn_cl.training.batches import DeviceData, Transform
from acn_cl.training.device import autocast
from acn_cl.training.network import Network
from acn_cl.training.world import World

BATCH = 500  # images at once; without gradients there is memory for more than a training batch


def evaluate(
    network: Network,
    data: DeviceData,
    transform: Transform,
    experience: int,
    precision: str,
    world: World | None = None,
) -> Probe:
    """Score all sub-networks on ``data``, which belongs to ``experience``, in one pass and in the run's precision.

    Of several processes each scores its share of the images.
    """
    world = world or World()
    share = world.share(len(data))[0] if len(data) >= world.size else slice(None)

    def head(features: Tensor) -> Tensor:
        logits: Tensor = network.heads(features, experience)
        return logits

    with autocast(data.labels.device, precision):
        own = probe_batches(network.backbone, head, data.plain_batches(transform, BATCH, share))
    return own if own.samples == len(data) else _together(own, world)


def _together(own: Probe, world: World) -> Probe:
    """What all processes' images give."""
    depths = len(own.loss)
    sums: list[Any] = [np.rint(own.accuracy * own.samples), own.loss * own.samples, own.answers, [own.samples]]
    all_ = world.sum(torch.from_numpy(np.concatenate(sums))).numpy()
    right, loss, answers, (samples,) = np.split(all_, [depths, 2 * depths, -1])
    return Probe(right / samples, loss / samples, int(samples), answers.astype(np.int64))
