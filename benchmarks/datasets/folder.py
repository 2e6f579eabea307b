"""Layout: image folders, ``train/<class>/...`` and ``val/<class>/...`` or ``test/<class>/...``.

Also Tiny ImageNet's own: ``train/<class>/images/*`` and ``val/images/*`` with their classes in ``val_annotations.txt``.
Class ids follow the sorted names of the class folders, as in torchvision's ImageFolder.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from acn_cl.benchmarks.datasets.arrays import Chunks, Labels
from acn_cl.benchmarks.datasets.encoded import Fit, decode_in_order
from acn_cl.benchmarks.datasets.source import Place, Source
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
_ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class FolderSource(Source):
    layout: ClassVar[str] = "image folder"

    labels: dict[str, Labels] = field(default_factory=dict)
    """``train`` and ``test`` to the class ids of their files."""
    fit: Fit | None = None
    """How images of any size are brought to the data set's; None: they must have it."""

    def chunks(self, part: str) -> Chunks:
        return decode_in_order(self.encoded(part), self.info, self.fit)

    def encoded(self, part: str) -> "FolderImages":
        """The part's images, not decoded."""
        return FolderImages(self.files[part], self.labels[part])

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each folder's files, one after the other: a line for each of a million files would be too many."""
        digests: dict[str, hashlib._Hash] = {}
        for path in self.all_files():
            digest = digests.setdefault(str(path.parent.relative_to(self.folder)), hashlib.sha256())
            digest.update(path.name.encode() + b"\0" + _read(path))
        return {name: digest.hexdigest() for name, digest in digests.items()}


@dataclass(frozen=True)
class FolderImages:
    """Files and their labels."""

    files: tuple[Path, ...]
    labels: Labels

    def read(self, row: int) -> tuple[bytes, str]:
        return _read(self.files[row]), str(self.files[row])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def find_folder(info: DatasetInfo, place: Place, fit: Fit | None = None) -> FolderSource | None:
    """``train/`` and a test part of one folder a class in ``place.folder``.

    Raises:
        UserError: the number of classes is wrong, a part is missing or empty, or a link leaves the data folder.
    """
    train = place.folder / "train"
    if not place.named or not train.is_dir():
        return None
    names = class_folders(train)
    if not names:
        return None
    if len(names) != info.classes:
        raise UserError(f"{train} has {len(names)} class folders, {info.name} has {info.classes} classes")
    test = _test_folder(info, place.folder)
    label_of = {name: label for label, name in enumerate(names)}
    files, labels = {}, {}
    for part, folder in (("train", train), ("test", test)):
        pairs = sorted(_labelled(folder, label_of, place))
        if not pairs:
            raise UserError(f"{folder} has no images ({', '.join(_SUFFIXES)})")
        files[part] = tuple(path for path, _ in pairs)
        labels[part] = np.array([label for _, label in pairs], np.int64)
    return FolderSource(info, place.folder, files, labels, fit)


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in ``folder``: the classes."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _test_folder(info: DatasetInfo, folder: Path) -> Path:
    for name in info.test_parts:
        if (folder / name).is_dir():
            return folder / name
    raise UserError(f"{folder} has train/, but no {' or '.join(f'{name}/' for name in info.test_parts)}")


def _labelled(folder: Path, label_of: dict[str, int], place: Place) -> Iterator[tuple[Path, int]]:
    """Every image under ``folder`` with its class id."""
    if (folder / _ANNOTATIONS).is_file():
        yield from _annotated(folder, label_of, place)
        return
    for name in class_folders(folder):
        if name not in label_of:
            raise UserError(f"{folder / name}: there is no such class in train/")
        for path in _images(folder / name, place):
            yield path, label_of[name]


def _annotated(folder: Path, label_of: dict[str, int], place: Place) -> Iterator[tuple[Path, int]]:
    """Tiny ImageNet's validation part: a line an image, its file and its class first."""
    class_of = {}
    for number, line in enumerate((folder / _ANNOTATIONS).read_text(encoding="utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if name not in label_of:
            raise UserError(f"{folder / _ANNOTATIONS}, line {number}: there is no class {name!r} in train/")
        class_of[file] = label_of[name]
    for path in _images(folder / "images", place):
        if path.name not in class_of:
            raise UserError(f"{path} has no line in {_ANNOTATIONS}")
        yield path, class_of.pop(path.name)
    if class_of:
        raise UserError(f"{folder / 'images'} lacks {next(iter(class_of))}, which {_ANNOTATIONS} lists")


def _images(folder: Path, place: Place) -> Iterator[Path]:
    """Image files of ``folder`` and of the folders below it."""
    if folder.is_symlink():
        place.inside(folder)
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        path = folder / entry.name
        if entry.is_symlink():
            place.inside(path)
        if entry.is_dir():
            yield from _images(path, place)
        elif entry.name.lower().endswith(_SUFFIXES):
            yield path
