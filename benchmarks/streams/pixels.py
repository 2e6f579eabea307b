"""Fixed rearrangements of an image's pixels: what makes a domain of permuted and rotated streams."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from acn_cl.benchmarks.datasets.arrays import Pixels

_OUTSIDE = -1


@dataclass(frozen=True, eq=False)
class PixelMap:
    """Where each pixel of the result comes from."""

    source: npt.NDArray[np.int64]
    """``(H * W,)``: row-major position in the original image, or -1 for black."""

    def __call__(self, images: Pixels) -> Pixels:
        """Images ``(n, C, H, W)``, all rearranged alike."""
        flat = images.reshape(*images.shape[:2], -1)
        moved = flat[:, :, self.source]
        moved[:, :, self.source == _OUTSIDE] = 0
        return moved.reshape(images.shape)


def permutation(image_size: tuple[int, int], rng: np.random.Generator) -> PixelMap:
    """A random permutation of an image's pixels, the same in every channel (Goodfellow et al., arXiv:1312.6211)."""
    height, width = image_size
    return PixelMap(rng.permutation(height * width))


def rotation(image_size: tuple[int, int], degrees: float) -> PixelMap:
    """A rotation about the centre, counter-clockwise, to the nearest pixel, black outside.

    As Avalanche's RotatedMNIST, whose RandomRotation interpolates to the nearest pixel (Lopez-Paz and Ranzato,
    arXiv:1706.08840, introduced the benchmark). Pillow rotates an image of pixel numbers, from 1; 0 is outside.
    """
    height, width = image_size
    numbers = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    rotated = Image.fromarray(numbers).rotate(degrees, Image.Resampling.NEAREST)
    return PixelMap(np.asarray(rotated, np.int64).ravel() - 1)
