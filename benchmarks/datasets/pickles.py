"""Layout: torchvision's ``cifar-10-batches-py`` and ``cifar-100-python``, Krizhevsky's own pickles.

A pickle can run any code, so none is opened unless its MD5 is the published one.
"""

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from acn_cl.benchmarks.datasets.arrays import Chunks
from acn_cl.benchmarks.datasets.source import Place, Source, check_digest, check_labels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}
_LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}

# As torchvision.datasets lists them (tests/test_datasets.py compares).
MD5 = {
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}


@dataclass(frozen=True)
class PickleSource(Source):
    layout: ClassVar[str] = "torchvision pickles"

    def chunks(self, part: str) -> Chunks:
        for path in self.files[part]:
            batch: dict[str, Any] = pickle.loads(self._published_bytes(path), encoding="latin1")
            labels = np.asarray(batch[_LABELS[self.info.name]], np.int64)
            check_labels(self.info, labels, str(path))
            yield batch["data"].reshape(-1, *self.info.image_shape), labels

    def _published_bytes(self, path: Path) -> bytes:
        """The very bytes whose MD5 was compared: the file cannot be exchanged between the check and its use."""
        data = path.read_bytes()
        check_digest(path, "md5", hashlib.md5(data).hexdigest(), MD5[self.info.name][path.name])
        return data

    def published(self) -> Iterator[tuple[Path, str, str]]:
        for path in self.all_files():
            yield path, "md5", MD5[self.info.name][path.name]


def find_pickles(info: DatasetInfo, place: Place) -> PickleSource | None:
    """torchvision's folder in ``place.folder``.

    Raises:
        UserError: one of its files is missing, or a link leaves the data folder.
    """
    if info.name not in FOLDERS:
        return None
    name = FOLDERS[info.name]
    folder = place.folder if place.folder.name == name else place.folder / name
    if not folder.is_dir():
        return None
    files = {part: tuple(folder / name for name in names) for part, names in _FILES[info.name].items()}
    for path in (*files["train"], *files["test"]):
        if not path.exists():
            raise UserError(f"{folder} lacks {path.name}; download it again")
        place.inside(path)
    return PickleSource(info, folder, files)
