"""Load a data set by name."""

from typing import cast

from acn_cl.benchmarks.datasets.arrays import ImageDataset
from acn_cl.benchmarks.datasets.table import DATASETS, DatasetInfo
from acn_cl.errors import UserError, suggest
from acn_cl.tables import resolve


def dataset_info(name: str) -> DatasetInfo:
    """The table's line for ``name``.

    Raises:
        UserError: there is none; the message gives the nearest name.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; {suggest(name, DATASETS)}")
    return DATASETS[name]


def load_dataset(which: str | DatasetInfo, download: bool = False) -> ImageDataset:
    """A data set of the table, or one that a :class:`DatasetInfo` describes.

    Args:
        which: its name, or its description.
        download: let torchvision fetch it where it is not found.

    Raises:
        UserError: no such name, the data set is not found or is damaged, or the cache cannot be written.
    """
    info = dataset_info(which) if isinstance(which, str) else which
    return cast(ImageDataset, resolve(info.loader)(info, download))
