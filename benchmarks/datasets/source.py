"""A data set as it lies on disk, before it is decoded: what every layout has in common."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from acn_cl.benchmarks.datasets.arrays import Chunks, Labels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError


@dataclass(frozen=True)
class Place:
    """A folder in which a data set may lie."""

    root: Path
    """The data folder (one of ``ACN_CL_DATA``) that it belongs to."""
    folder: Path
    named: bool
    """Whether ``folder`` bears one of the data set's names, so that whatever lies in it is that data set."""

    def inside(self, path: Path) -> Path:
        """``path``, once it is sure that following its symbolic links does not leave the data folder.

        Raises:
            UserError: it does.
        """
        target = path.resolve()
        if not target.is_relative_to(self.root.resolve()):
            raise UserError(
                f"{path} is a symbolic link that leaves the data folder {self.root} (to {target}); "
                f"add the folder it leads to to ACN_CL_DATA"
            )
        return path


@dataclass(frozen=True)
class Source(ABC):
    """A data set found in one layout. Finding one reads names only; ``chunks`` reads and checks the contents."""

    layout: ClassVar[str]

    info: DatasetInfo
    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    """``train`` and ``test`` to the files that hold them, in the order in which they are read."""

    @abstractmethod
    def chunks(self, part: str) -> Chunks:
        """Images and labels of ``train`` or ``test``, decoded, in the order of the source.

        Raises:
            UserError: a file is damaged, an image has the wrong size, a label is out of range.
        """

    def published(self) -> Iterator[tuple[Path, str, str]]:
        """File, algorithm and checksum, wherever its publisher gives one."""
        yield from ()

    def all_files(self) -> tuple[Path, ...]:
        """Every file of it, each once."""
        return tuple(dict.fromkeys(path for files in self.files.values() for path in files))

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.all_files())

    def stamp(self) -> str:
        """A digest of names, sizes and modification times: another one means that the source has been changed."""
        digest = hashlib.sha256()
        for path in self.all_files():
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file, by its name within ``folder``."""
        return {str(path.relative_to(self.folder)): file_digest(path) for path in self.all_files()}

    def check_published(self) -> None:
        """Compare with the publisher's checksums.

        Raises:
            UserError: one does not match; the file must not be read, let alone unpickled.
        """
        for path, algorithm, expected in self.published():
            check_digest(path, algorithm, file_digest(path, algorithm), expected)


def check_digest(path: Path, algorithm: str, found: str, expected: str) -> None:
    """Refuse a file whose checksum is not the published one.

    Raises:
        UserError: it is not.
    """
    if found != expected:
        raise UserError(
            f"{path} is not the published file: its {algorithm.upper()} is {found}, not {expected}; "
            f"it was not used. Download it again"
        )


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def check_labels(info: DatasetInfo, labels: Labels, where: str) -> None:
    """Refuse labels that the data set does not have.

    Raises:
        UserError: one is out of range; the message gives the first such row.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= info.classes))
    if len(wrong):
        row = wrong[0]
        raise UserError(
            f"{where}, row {row}: label {labels[row]} is out of range, {info.name} has 0..{info.classes - 1}"
        )
