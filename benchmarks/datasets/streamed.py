"""Loader of data sets whose images are too large to keep decoded: ImageNet. Decoded when they are read."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from acn_cl.benchmarks.datasets.arrays import ImageDataset, LabelledImages, Pixels
from acn_cl.benchmarks.datasets.encoded import EncodedImages, Fit, decode
from acn_cl.benchmarks.datasets.fit import fit_imagenet
from acn_cl.benchmarks.datasets.folder import FolderSource
from acn_cl.benchmarks.datasets.parquet import ParquetSource
from acn_cl.benchmarks.datasets.search import require_source
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """An array-like of uint8 ``(N, C, H, W)`` that decodes the rows it is asked for."""

    encoded: EncodedImages
    info: DatasetInfo
    fit: Fit

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.info.image_shape)

    def __len__(self) -> int:
        return len(self.encoded.labels)

    def __getitem__(self, rows: Any) -> Pixels:
        wanted = np.arange(len(self))[rows]
        images = np.empty((len(wanted), *self.info.image_shape), np.uint8)
        for place, row in enumerate(wanted):
            images[place] = decode(*self.encoded.read(int(row)), self.info, self.fit)
        return images


def load_streamed(info: DatasetInfo, download: bool = False) -> ImageDataset:
    """The data set, its labels in memory, its images still on disk.

    Raises:
        UserError: it is not found or not whole. A damaged image shows when it is read.
    """
    source = require_source(info, download)
    if not isinstance(source, ParquetSource | FolderSource):
        raise UserError(f"{info.name} cannot be streamed from {source.layout}")

    def part(name: str) -> LabelledImages:
        images = source.encoded(name)
        return LabelledImages(StreamedImages(images, info, fit_imagenet), images.labels)

    return ImageDataset(info, part("train"), part("test"), source.layout, source.folder)
