"""Somebody's own image folder as a data set."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from acn_cl.benchmarks.datasets.arrays import ImageDataset, LabelledImages
from acn_cl.benchmarks.datasets.cache import open_or_decode
from acn_cl.benchmarks.datasets.decoded import progress
from acn_cl.benchmarks.datasets.fit import fit_centre
from acn_cl.benchmarks.datasets.folder import FolderSource, class_folders, find_folder
from acn_cl.benchmarks.datasets.search import data_folders
from acn_cl.benchmarks.datasets.source import Place
from acn_cl.benchmarks.datasets.streamed import StreamedImages
from acn_cl.benchmarks.datasets.table import DATASETS, DatasetInfo
from acn_cl.errors import UserError

LARGEST_DECODED = 64
"""Pixels a side; larger images are decoded while streaming."""


@lru_cache(maxsize=8)
def own_folder(folder: str, size: int) -> DatasetInfo:
    """Describe an image folder: its classes are the folders in its ``train/``, its sizes are counted.

    Args:
        folder: a path, or a name within the folders of ``ACN_CL_DATA``.
        size: pixels a side that every image is brought to: the shorter side resized, the middle cut out.

    Raises:
        UserError: there is no such folder, or it is not whole.
    """
    path = _find(folder)
    names = class_folders(path / "train")
    if not names:
        raise UserError(f"{path / 'train'} has no class folders")
    imagenet = DATASETS["imagenet"]
    info = DatasetInfo(
        name=path.name,
        about=f"the image folder {path}",
        classes=len(names),
        image_size=(size, size),
        channels=3,
        train_size=0,
        test_size=0,
        mean=imagenet.mean,
        std=imagenet.std,
        class_names=tuple(names),
        licence="its owner's",
        citation="",
        url=str(path),
        loader="acn_cl.benchmarks.datasets.own:load_own",
        test_parts=("test", "val", "valid", "validation"),
    )
    labels = _source(info).labels
    return replace(info, train_size=len(labels["train"]), test_size=len(labels["test"]))


def load_own(info: DatasetInfo, download: bool = False) -> ImageDataset:
    """The images of a folder that :func:`own_folder` described.

    Raises:
        UserError: the folder is not whole, or an image is damaged.
    """
    source = _source(info)
    if max(info.image_size) <= LARGEST_DECODED:
        return open_or_decode(source, progress(info))
    return ImageDataset(info, _streamed(source, "train"), _streamed(source, "test"), source.layout, source.folder)


def _source(info: DatasetInfo) -> FolderSource:
    path = Path(info.url)
    source = find_folder(info, Place(path, path, named=True), fit_centre)
    if source is None:
        raise UserError(f"{path} has no train/ with class folders any more")
    return source


def _streamed(source: FolderSource, part: str) -> LabelledImages:
    images = source.encoded(part)
    return LabelledImages(StreamedImages(images, source.info, fit_centre), images.labels)


def _find(folder: str) -> Path:
    candidates = [Path(folder).expanduser(), *(root / folder for root in data_folders())]
    for path in candidates:
        if (path / "train").is_dir():
            return path.resolve()
    raise UserError(f"no image folder with a train/ in it at {', '.join(str(path) for path in candidates)}")
