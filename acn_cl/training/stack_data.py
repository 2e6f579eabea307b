"""A stack's images on the device: each once, however many runs use it, and gathered by index.

R runs, N images of each run's part, B of a batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from acn_cl.seeding import Seeds
from acn_cl.training.batches import Transform


@dataclass(frozen=True)
class Cuts:
    """Where each image is cut out, and whether it is flipped; as the stream's ``Crops``."""

    top: Tensor
    left: Tensor
    flip: Tensor


class CropTransform(Transform, Protocol):
    """A stream's transform, whose random numbers can be drawn beforehand."""

    padding: int
    flip: bool

    def draw(self, batch: int, generator: torch.Generator) -> Any:
        """The random numbers of ``batch`` images, with attributes as :class:`Cuts`."""

    def crop(self, images: Tensor, crops: Any) -> Tensor:
        """Augment uint8 images (B, C, H, W) by them."""


@dataclass(frozen=True)
class StackedPart:
    """One part of one experience, of every run.

    Args:
        images: (M, C, H, W), uint8 or float in [0, 1]; the pool that all runs gather from.
        rows: (R, N) int64, the images of each run in the pool.
        labels: (R, N) int64.
    """

    images: Tensor
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.rows.shape[1]

    def gather(self, rows: Tensor) -> Tensor:
        """(R, B) rows of the pool -> (R * B, C, H, W)."""
        return self.images.index_select(0, rows.flatten())

    def plain_batches(self, transform: Transform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, not augmented: (R, B, C, H, W) and (R, B)."""
        for rows, labels in zip(torch.split(self.rows, size, 1), torch.split(self.labels, size, 1), strict=True):
            yield by_run(transform.evaluate(self.gather(rows)), rows), labels


def by_run(images: Tensor, rows: Tensor) -> Tensor:
    """(R * B, C, H, W) images of (R, B) rows -> (R, B, C, H, W)."""
    return images.view(*rows.shape, *images.shape[1:])


class ImagePool:
    """Images of a data set, on the device once.

    Args:
        parts: every part that will be asked for.
        device: where the images go.
    """

    def __init__(self, parts: Iterable[Any], device: torch.device) -> None:
        self._device = device
        shared: dict[str, list[Any]] = {}
        for part in parts:
            if part.images.pixels is None:
                shared.setdefault(part.split, []).append(part)
        self._rows = {split: np.unique(np.concatenate([p.indices for p in some])) for split, some in shared.items()}
        self._images = {
            split: torch.from_numpy(np.ascontiguousarray(some[0].images.source[self._rows[split]])).to(device)
            for split, some in shared.items()
        }

    def stack(self, parts: Sequence[Any]) -> StackedPart:
        """The same part of every run, of equal lengths."""
        labels = torch.as_tensor(np.stack([p.labels for p in parts]), dtype=torch.int64, device=self._device)
        if any(part.images.pixels is not None for part in parts):  # permuted or rotated: images of their own
            return own_images([torch.from_numpy(part.load()) for part in parts], labels)
        split = parts[0].split
        rows = np.searchsorted(self._rows[split], np.stack([p.indices for p in parts]))
        return StackedPart(self._images[split], torch.as_tensor(rows, device=self._device), labels)


def own_images(images: Sequence[Tensor], labels: Tensor) -> StackedPart:
    """A part whose runs share no image: R tensors (N, C, H, W), labels (R, N)."""
    rows = torch.arange(labels.numel(), device=labels.device).view(labels.shape)
    return StackedPart(torch.cat(list(images)).to(labels.device), rows, labels)


class StackedEpoch:
    """The batches of one epoch of every run, with the random numbers of the same run alone.

    All draws are made on the host beforehand and sent in one piece, so that no step waits for any.

    Args:
        part: what is trained on.
        transform: the stream's.
        size: images a batch and run.
        seeds: each run's.
        position: experience and epoch.
    """

    def __init__(
        self,
        part: StackedPart,
        transform: CropTransform,
        size: int,
        seeds: Sequence[Seeds],
        position: tuple[int, int],
    ) -> None:
        self._transform, self._part = transform, part
        device = part.rows.device
        orders = [torch.from_numpy(s.generator("data_order", *position).permutation(len(part))) for s in seeds]
        order = torch.stack(orders).to(device, non_blocking=True)
        self._rows = torch.split(part.rows.gather(1, order), size, 1)
        self._labels = torch.split(part.labels.gather(1, order), size, 1)
        self._cuts: tuple[Tensor, ...] | None = None
        if transform.padding or transform.flip:
            drawn = [self._draw(s, position) for s in seeds]
            self._cuts = torch.split(torch.stack(drawn, 1).to(device, non_blocking=True), size, 2)

    def _draw(self, seeds: Seeds, position: tuple[int, int]) -> Tensor:
        """(3, N) int16: top, left, flip of one run's epoch."""
        draws = torch.Generator()
        batches = []
        for batch, rows in enumerate(self._rows):
            draws.manual_seed(seeds.integer("augmentation", *position, batch))
            cuts = self._transform.draw(rows.shape[1], draws)
            batches.append(torch.stack([cuts.top.short(), cuts.left.short(), cuts.flip.short()]))
        return torch.cat(batches, 1)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Augmented images (R, B, C, H, W) and labels (R, B)."""
        rows = self._rows[index]
        images = self._part.gather(rows)
        if self._cuts is not None:
            top, left, flip = self._cuts[index].flatten(1)
            images = self._transform.crop(images, Cuts(top.long(), left.long(), flip.bool()))
        return by_run(self._transform.evaluate(images), rows), self._labels[index]
