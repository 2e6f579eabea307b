"""A stack's images: each once, however many runs use it, and gathered by index.

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
from acn_cl.training.images import Images, ahead, joined, placed
from acn_cl.training.placement import bytes_of


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
        rows: (R, N) int64 on the host, the images of each run in the pool.
        labels: (R, N) int64 on the device.
    """

    images: Images
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.rows.shape[1]

    def gathered(self, rows: Tensor, size: int) -> Iterator[Tensor]:
        """(R, n) rows of the pool, on the host -> (R * B, C, H, W), B = ``size`` at a time."""
        if isinstance(self.images, Tensor):  # one transfer for all batches
            rows = rows.to(self.labels.device, non_blocking=True)
        chunks = torch.split(rows, size, 1) if rows.shape[1] else ()  # torch splits nothing into one piece of nothing
        return ahead(self.images, [chunk.flatten() for chunk in chunks])

    def plain_batches(self, transform: Transform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, not augmented: (R, B, C, H, W) and (R, B)."""
        for images, labels in zip(self.gathered(self.rows, size), torch.split(self.labels, size, 1), strict=True):
            yield by_run(transform.evaluate(images), labels), labels


def by_run(images: Tensor, labels: Tensor) -> Tensor:
    """(R * B, C, H, W) images with (R, B) labels -> (R, B, C, H, W)."""
    return images.view(*labels.shape, *images.shape[1:])


class ImagePool:
    """Images of a data set, each once, on the device or streamed from the host.

    Args:
        parts: every part that will be asked for.
        device: where the images go.
        streamed: whether batches of them go there only when they are needed.
    """

    def __init__(self, parts: Iterable[Any], device: torch.device, streamed: bool = False) -> None:
        self._device, self._streamed = device, streamed
        shared: dict[str, list[Any]] = {}
        for part in parts:
            if part.images.pixels is None:
                shared.setdefault(part.split, []).append(part)
        self._rows = {split: _rows_of(some) for split, some in shared.items()}
        self._images: dict[str, Images] = {}
        for split, some in shared.items():
            view = some[0].images.source if streamed else some[0].images.source[self._rows[split]]
            self._images[split] = placed(view if streamed else np.ascontiguousarray(view), device, streamed)

    def stack(self, parts: Sequence[Any]) -> StackedPart:
        """The same part of every run, of equal lengths."""
        labels = torch.as_tensor(np.stack([p.labels for p in parts]), dtype=torch.int64, device=self._device)
        if any(part.images.pixels is not None for part in parts):  # permuted or rotated: images of their own
            own = [part.images if self._streamed else part.load() for part in parts]
            return own_images(own, labels, self._streamed)
        split = parts[0].split
        rows = np.stack([p.indices for p in parts])
        if not self._streamed:  # the pool holds these rows alone, in their order
            rows = np.searchsorted(self._rows[split], rows)
        return StackedPart(self._images[split], torch.from_numpy(rows), labels)


def own_images(images: Sequence[Any], labels: Tensor, streamed: bool) -> StackedPart:
    """A part whose runs share no image: R array-likes (N, C, H, W), labels (R, N)."""
    rows = torch.arange(labels.numel()).view(labels.shape)
    return StackedPart(joined([placed(one, labels.device, streamed) for one in images]), rows, labels)


def pool_size(parts: Iterable[Any]) -> int:
    """Bytes of the images of some parts, those that several share counted once."""
    shared: dict[str, list[Any]] = {}
    own: list[Any] = []
    for part in parts:
        (own if part.images.pixels is not None else shared.setdefault(part.split, [])).append(part)
    return bytes_of(own) + sum(len(_rows_of(some)) * bytes_of(some[:1]) // len(some[0]) for some in shared.values())


def _rows_of(parts: Sequence[Any]) -> Any:
    return np.unique(np.concatenate([part.indices for part in parts]))


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
        self._transform, self._part, self._size = transform, part, size
        device = part.labels.device
        orders = [torch.from_numpy(s.generator("data_order", *position).permutation(len(part))) for s in seeds]
        order = torch.stack(orders)
        self._rows = part.rows.gather(1, order)
        self._labels = torch.split(part.labels.gather(1, order.to(device, non_blocking=True)), size, 1)
        self._cuts: tuple[Tensor, ...] | None = None
        if transform.padding or transform.flip:
            drawn = [self._draw(s, position) for s in seeds]
            self._cuts = torch.split(torch.stack(drawn, 1).to(device, non_blocking=True), size, 2)

    def _draw(self, seeds: Seeds, position: tuple[int, int]) -> Tensor:
        """(3, N) int16: top, left, flip of one run's epoch."""
        draws = torch.Generator()
        batches = []
        for batch, labels in enumerate(self._labels):
            draws.manual_seed(seeds.integer("augmentation", *position, batch))
            cuts = self._transform.draw(labels.shape[1], draws)
            batches.append(torch.stack([cuts.top.short(), cuts.left.short(), cuts.flip.short()]))
        return torch.cat(batches, 1)

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, first: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
        """From batch ``first`` on: its number, augmented images (R, B, C, H, W) and labels (R, B)."""
        found = self._part.gathered(self._rows[:, first * self._size :], self._size)
        for index, images in enumerate(found, first):
            if self._cuts is not None:
                top, left, flip = self._cuts[index].flatten(1)
                images = self._transform.crop(images, Cuts(top.long(), left.long(), flip.bool()))
            yield index, by_run(self._transform.evaluate(images), self._labels[index]), self._labels[index]
