"""Images that are still PNG, WebP or JPEG: read one by one, decoded to fixed-size arrays."""

import io
from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from acn_cl.benchmarks.datasets.arrays import Chunks, Labels, Pixels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

_CHUNK = 1000
_MODES = {1: "L", 3: "RGB"}

Fit = Callable[[Image.Image, tuple[int, int]], Image.Image]
"""Brings an image to (height, width), or returns it as it is."""


class EncodedImages(Protocol):
    """A part of a data set, not decoded yet."""

    @property
    def labels(self) -> Labels:
        """``(N,)``, every one within range."""

    def read(self, row: int) -> tuple[bytes, str]:
        """The encoded image of a row, and where it stands, for a message."""


def decode(encoded: bytes, where: str, info: DatasetInfo, fit: Fit | None = None) -> Pixels:
    """One image as uint8 ``(C, H, W)``, in the data set's number of channels.

    Args:
        encoded: the bytes of a PNG, WebP or JPEG file.
        where: where it stands, for a message.
        info: the data set; images of fixed size must have exactly its size.
        fit: for images of any size, how to bring them to the data set's.

    Raises:
        UserError: it is no image, is damaged or has the wrong size.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            picture = image.convert(_MODES[info.channels])
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{where}: not a readable image ({_first_line(error)})") from None
    if fit is not None:
        picture = fit(picture, info.image_size)
    height, width = info.image_size
    if picture.size != (width, height):
        raise UserError(
            f"{where}: the image is {picture.width}x{picture.height} pixels, {info.name} has {width}x{height}"
        )
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(height, width, info.channels)
    return pixels.transpose(2, 0, 1)


def decode_in_order(images: EncodedImages, info: DatasetInfo, fit: Fit | None = None) -> Chunks:
    """All the images, a thousand at a time."""
    labels = images.labels
    for start in range(0, len(labels), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(labels)))
        pixels = np.empty((len(rows), *info.image_shape), np.uint8)
        for row in rows:
            pixels[row - start] = decode(*images.read(row), info, fit)
        yield pixels, labels[rows.start : rows.stop]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
