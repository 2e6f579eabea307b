"""Accuracy of every sub-network on one experience."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acn_cl.training.batches import DeviceData, Transform
from acn_cl.training.device import autocast
from acn_cl.training.network import Network

BATCH = 500  # images at once; without gradients there is memory for more than a training batch


@dataclass(frozen=True)
class Scores:
    """How sub-networks 0..L did on one experience.

    Args:
        accuracy: (L+1,) shares of samples, 0..1.
        loss: (L+1,) mean cross-entropy in nats.
        samples: how many images.
    """

    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    samples: int


@torch.no_grad()
def evaluate(network: Network, data: DeviceData, transform: Transform, experience: int, precision: str) -> Scores:
    """Score all sub-networks on ``data``, which belongs to ``experience``, in one pass.

    The network is put into evaluation mode and back. Results are read from the device once.
    """
    was_training = network.training
    network.eval()
    correct, loss = [], []
    for images, labels in data.plain_batches(transform, BATCH):
        with autocast(images.device, precision):
            features = network.backbone.forward_depths(images)
            logits = network.heads(features, experience).float()
        depths, batch, _ = logits.shape
        targets = labels.expand(depths, batch)
        correct.append((logits.argmax(-1) == targets).sum(1))
        every = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        loss.append(every.view(depths, batch).sum(1, dtype=torch.float64))
    network.train(was_training)
    samples = len(data)
    return Scores(
        torch.stack(correct).sum(0).cpu().numpy() / samples, torch.stack(loss).sum(0).cpu().numpy() / samples, samples
    )
