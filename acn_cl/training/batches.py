"""Training data: batches are gathered by index and augmented on the device.

Where the images fit there, nothing is decoded in the loop: an experience is one uint8 tensor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from acn_cl.seeding import Seeds
from acn_cl.training.images import HostImages, Images, ahead, placed, slices


class Part(Protocol):
    """What a stream gives as one part of an experience."""

    labels: object
    images: Any
    """An array-like of (N, C, H, W) uint8 that reads what it is asked for."""

    def load(self) -> object:
        """All of them, in memory."""


class Transform(Protocol):
    """A stream's transforms on batches; both give normalised float images of the same shape."""

    def train(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented."""

    def evaluate(self, images: Tensor) -> Tensor:
        """Not augmented."""


@dataclass(frozen=True)
class DeviceData:
    """One part of one experience.

    Args:
        images: (N, C, H, W) on the device or on the host; uint8, or float in [0, 1] where they were corrupted.
        labels: (N,) int64 on the device, in the stream's label space.
    """

    images: Images
    labels: Tensor

    @classmethod
    def of(cls, part: Part, device: torch.device, streamed: bool = False) -> "DeviceData":
        """Move a stream's part to ``device``; of a streamed one the labels alone."""
        labels = torch.as_tensor(part.labels, dtype=torch.int64).to(device)
        return cls(placed(part.images if streamed else part.load(), device, streamed), labels)

    def __len__(self) -> int:
        return len(self.labels)

    def plain_batches(self, transform: Transform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, not augmented."""
        chunks = slices(len(self), size)
        for chunk, images in zip(chunks, ahead(self.images, chunks), strict=True):
            yield transform.evaluate(images), self.labels[chunk]


class TrainingBatches:
    """The batches that one experience is trained on; each iteration is one epoch in an order of its own.

    The order is drawn anew for every (experience, epoch), the augmentation for every (experience, epoch, batch), from
    generators seeded by that position: nothing need be replayed to go on from anywhere, and nobody else's draws count.
    They draw on the CPU, so that the numbers are the same on every device.

    Args:
        data: the training part.
        transform: the stream's.
        size: images a batch; the last one of an epoch may be smaller, and is used.
        seeds: the run's.
        experience: its index.
        task: the task label of every image, or (N,) of them where images of several tasks are mixed.
    """

    def __init__(
        self, data: DeviceData, transform: Transform, size: int, seeds: Seeds, experience: int, task: int | Tensor
    ) -> None:
        self.data, self.transform, self.size = data, transform, size
        self.seeds, self.experience, self.task = seeds, experience, task
        self.epoch = 0
        """The epoch that the next iteration is."""
        self.batch = 0
        """The batch that the next iteration begins with; 0 but after a resume in the middle of an epoch."""

    def __len__(self) -> int:
        return -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        device = self.data.labels.device
        epoch, first = self.epoch, self.batch
        self.epoch, self.batch = epoch + 1, 0
        order = self.seeds.generator("data_order", self.experience, epoch).permutation(len(self.data))
        on_host = torch.from_numpy(order)
        chunks = torch.split(on_host.to(device), self.size)[first:]
        wanted = torch.split(on_host, self.size)[first:] if isinstance(self.data.images, HostImages) else chunks
        draws = torch.Generator()
        for batch, (chunk, found) in enumerate(zip(chunks, ahead(self.data.images, wanted), strict=True), first):
            draws.manual_seed(self.seeds.integer("augmentation", self.experience, epoch, batch))
            images = self.transform.train(found, draws)
            labels = self.data.labels[chunk]
            tasks = torch.full_like(labels, self.task) if isinstance(self.task, int) else self.task[chunk]
            yield [images, labels, tasks]
