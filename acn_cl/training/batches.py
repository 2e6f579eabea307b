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
from acn_cl.training.world import World


class Part(Protocol):
    """What a stream gives as one part of an experience."""

    labels: object
    images: Any
    """An array-like of (N, C, H, W) uint8 that reads what it is asked for."""

    def load(self) -> object:
        """All of them, in memory."""


class Transform(Protocol):
    """A stream's transforms on batches; both give normalised float images of the same shape."""

    def train(
        self, images: Tensor, generator: torch.Generator, share: slice = slice(None), batch: int | None = None
    ) -> Tensor:
        """Augmented; ``images`` may be a share of a batch of so many, which is what the numbers are drawn for."""

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

    def plain_batches(
        self, transform: Transform, size: int, share: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, not augmented, of all images or of the ``share`` from one to another."""
        chunks = slices(len(self), size, share)
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
        world: the processes that share each batch; this one loads and gives its own share.
    """

    def __init__(
        self, data: DeviceData, transform: Transform, size: int, seeds: Seeds, experience: int, task: int | Tensor,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.data, self.transform, self.size = data, transform, size
        self.world = world or World()
        self.weight = 1.0
        """Of this process's share in the mean over the current batch."""
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
        on_host = torch.split(torch.from_numpy(order), self.size)[first:]
        on_device = torch.split(torch.from_numpy(order).to(device), self.size)[first:]
        shares = [self.world.share(len(chunk)) for chunk in on_host]
        indexed_by = on_host if isinstance(self.data.images, HostImages) else on_device
        wanted = [chunk[share] for chunk, (share, _) in zip(indexed_by, shares, strict=True)]
        draws = torch.Generator()
        for batch, found in enumerate(ahead(self.data.images, wanted), first):
            draws.manual_seed(self.seeds.integer("augmentation", self.experience, epoch, batch))
            share, self.weight = shares[batch - first]
            whole = on_device[batch - first]
            images = self.transform.train(found, draws, share, len(whole))
            chunk = whole[share]
            labels = self.data.labels[chunk]
            tasks = torch.full_like(labels, self.task) if isinstance(self.task, int) else self.task[chunk]
            yield [images, labels, tasks]
