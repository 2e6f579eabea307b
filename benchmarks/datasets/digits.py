"""The embedded data set: scikit-learn's 1,797 handwritten digits, 8x8 grey, real data inside an installed package."""

import hashlib
import io
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from acn_cl.benchmarks.datasets.arrays import PARTS, ImageDataset, LabelledImages, Labels, Pixels, dataset_checksum
from acn_cl.benchmarks.datasets.table import DatasetInfo

_INK = 16  # the source counts ink in 4x4 blocks of a bitmap: 0..16
_TEST_EVERY = 5


@lru_cache(maxsize=1)
def load_digits(info: DatasetInfo, download: bool = False) -> ImageDataset:
    """The digits in a fixed, stratified split: 1,442 for training, 355 for the test.

    Every fifth image of each class, in the order of the source, is a test image: no random number is drawn, so the
    split depends on no seed and no library's version. The source's 0..16 becomes ``round(value * 255 / 16)``, so that
    pixels are uint8 0..255 as in every other set.
    """
    from sklearn.datasets import load_digits as from_sklearn

    source = from_sklearn()
    images = np.rint(source.images * (255 / _INK)).astype(np.uint8)[:, None]
    labels = source.target.astype(np.int64)
    is_test = _rank_in_class(labels) % _TEST_EVERY == _TEST_EVERY - 1
    return _dataset(info, train=(images[~is_test], labels[~is_test]), test=(images[is_test], labels[is_test]))


def _dataset(info: DatasetInfo, **parts: tuple[Pixels, Labels]) -> ImageDataset:
    digests: dict[str, str] = {}
    for part, (images, labels) in parts.items():
        digests |= {f"{part}-images.npy": _digest(images), f"{part}-labels.npy": _digest(labels)}
    train, test = (LabelledImages(*parts[name]) for name in PARTS)
    return ImageDataset(info, train, test, layout="embedded", checksum=dataset_checksum(digests))


def _digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 of the file that ``numpy.save`` would write."""
    file = io.BytesIO()
    np.save(file, array)
    return hashlib.sha256(file.getbuffer()).hexdigest()


def _rank_in_class(labels: Labels) -> Labels:
    """How many images of the same class come before each image."""
    rank = np.empty_like(labels)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return rank
