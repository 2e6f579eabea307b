"""From uint8 images to what the network reads: Avalanche's default transforms, batched and as torchvision v2.

Training images are padded with black, cut back to their size at a random place, flipped with probability one half
(where the data set's line says so) and normalised; test images are only normalised.
Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acn_cl.benchmarks.datasets.table import DatasetInfo

_WHITE = 255


@dataclass(frozen=True, eq=False)
class Crops:
    """Where each image of a batch is cut out, and whether it is flipped."""

    top: Tensor
    """``(B,)`` int64, 0..2 * padding; the padding itself is the middle."""
    left: Tensor
    flip: Tensor
    """``(B,)`` bool."""

    def of(self, share: slice) -> "Crops":
        """Those of some of the images."""
        return Crops(self.top[share], self.left[share], self.flip[share])

    @staticmethod
    def concatenate(crops: Sequence["Crops"]) -> "Crops":
        """One after the other: the draws of several runs for one stacked batch."""
        return Crops(*(torch.cat([getattr(c, name) for c in crops]) for name in ("top", "left", "flip")))


class BatchTransform:
    """A data set's transforms on whole batches, wherever they lie.

    Args:
        info: the data set, for its padding, flip, mean and standard deviation.
        augment: whether training images are cropped and flipped.
        device: where the batches will be.
    """

    def __init__(self, info: DatasetInfo, *, augment: bool = True, device: torch.device | str = "cpu") -> None:
        self.padding = info.padding if augment else 0
        self.flip = info.flip and augment
        self._mean = torch.tensor(info.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(info.std, device=device).view(-1, 1, 1)

    def train(
        self, images: Tensor, generator: torch.Generator, share: slice = slice(None), batch: int | None = None
    ) -> Tensor:
        """Augment and normalise: uint8 ``(B, C, H, W)`` to float32 of the same shape.

        Args:
            images: the batch, or what ``share`` says of it.
            generator: the run's own, on any device; the only source of randomness.
            share: which images of the batch these are; the numbers are drawn for all of it.
            batch: how many images all of it are, if not these.
        """
        if not (self.padding or self.flip):
            return self.evaluate(images)
        return self.evaluate(self.crop(images, self.draw(batch or len(images), generator).of(share)))

    def evaluate(self, images: Tensor) -> Tensor:
        """Normalise: uint8 0..255, or float in [0, 1], ``(..., C, H, W)`` to float32 of the same shape."""
        pixels = images if images.is_floating_point() else images.to(torch.float32).mul_(1.0 / _WHITE)
        return pixels.sub(self._mean).div_(self._std)

    def draw(self, batch: int, generator: torch.Generator) -> Crops:
        """The random numbers of ``batch`` images: each place of the crop and each flip equally likely."""
        device = generator.device
        places = torch.randint(2 * self.padding + 1, (2, batch), generator=generator, device=device)
        flip = torch.rand(batch, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        return Crops(places[0], places[1], flip)

    def crop(self, images: Tensor, crops: Crops) -> Tensor:
        """Pad, cut and flip: uint8 ``(B, C, H, W)`` to the same, in one gather over each channel's padded pixels."""
        batch, channels, height, width = images.shape
        device = images.device
        top, left, flip = (t.to(device, non_blocking=True).view(-1, 1) for t in (crops.top, crops.left, crops.flip))
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        x = torch.arange(width, device=device)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.where(flip, width - 1 - x, x)
        places = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).view(batch, 1, height * width)
        return padded.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(images)


def torchvision_transform(info: DatasetInfo, *, train: bool, augment: bool = True) -> Any:
    """The same as a torchvision v2 transform of one uint8 image ``(C, H, W)``, for Avalanche's data sets."""
    from torchvision.transforms import v2

    steps: list[Any] = []
    if train and augment and info.padding:
        steps.append(v2.RandomCrop(list(info.image_size), padding=info.padding))
    if train and augment and info.flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(
        [*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=list(info.mean), std=list(info.std))]
    )
