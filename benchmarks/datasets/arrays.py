"""A data set in memory, or as good as: arrays of images and of their labels."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from acn_cl.benchmarks.datasets.table import DatasetInfo

Pixels = npt.NDArray[np.uint8]
"""Images, ``(N, C, H, W)``, 0..255: the layout that torch's convolutions and linear layers read without a copy."""
Labels = npt.NDArray[np.int64]
"""Class ids, ``(N,)``."""

PARTS: tuple[Literal["train", "test"], ...] = ("train", "test")


class ImageArray(Protocol):
    """What the suite asks of an array of images, be it in memory, mapped from a file or decoded when read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Pixels:
        """The images of an integer array or a slice of rows, ``(n, C, H, W)``."""


@dataclass(frozen=True)
class LabelledImages:
    """One part of a data set: ``images`` uint8 ``(N, C, H, W)``, ``labels`` int64 ``(N,)``."""

    images: ImageArray
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """A data set's two parts, and where they came from."""

    info: DatasetInfo
    train: LabelledImages
    test: LabelledImages
    layout: str
    """How it lay on disk: ``embedded``, ``torchvision pickles``, ``idx``, ``parquet``, ``image folder``."""
    folder: Path | None = None
    checksum: str | None = None
    """:func:`dataset_checksum` of its arrays; None where images are decoded only when they are read."""

    def part(self, name: Literal["train", "test"]) -> LabelledImages:
        """``train`` or ``test``."""
        return self.train if name == "train" else self.test


def dataset_checksum(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a data set's images and labels: of the lines that ``sha256sum *.npy`` prints for its arrays.

    Args:
        digests: SHA-256 of ``test-images.npy``, ``test-labels.npy``, ``train-images.npy`` and ``train-labels.npy``, by
            name: each array as ``numpy.save`` writes it.
    """
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


Chunks = Iterator[tuple[Pixels, Labels]]
"""Some images and their labels at a time, in the order of the source."""
