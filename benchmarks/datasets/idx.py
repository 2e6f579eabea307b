"""Layout: the idx files of MNIST and Fashion-MNIST, gzipped or not, in ``MNIST/raw`` as torchvision has them or alone.

Format: http://yann.lecun.com/exdb/mnist/ (two zero bytes, a type, the number of dimensions, each dimension as a
big-endian 32-bit integer, then the data).
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from acn_cl.benchmarks.datasets.arrays import Chunks
from acn_cl.benchmarks.datasets.source import Place, Source, check_labels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 0x08

# MD5 of the gzipped originals, as torchvision.datasets lists them (tests/test_datasets.py compares).
MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}


@dataclass(frozen=True)
class IdxSource(Source):
    layout: ClassVar[str] = "idx"

    def chunks(self, part: str) -> Chunks:
        image_file, label_file = self.files[part]
        images, labels = read_idx(image_file), read_idx(label_file)
        if images.shape[1:] != self.info.image_size:
            size = "x".join(str(n) for n in images.shape[1:])
            raise UserError(f"{image_file}: images are {size}, {self.info.name} has {self.info.image_size}")
        if labels.shape != images.shape[:1]:
            raise UserError(f"{label_file}: {len(labels)} labels for {len(images)} images of {image_file.name}")
        ids = labels.astype(np.int64)
        check_labels(self.info, ids, str(label_file))
        yield images[:, None], ids

    def published(self) -> Iterator[tuple[Path, str, str]]:
        for path in self.all_files():
            if path.suffix == ".gz":
                yield path, "md5", MD5[self.info.name][path.name]


def find_idx(info: DatasetInfo, place: Place) -> IdxSource | None:
    """The four files in ``raw/``, in torchvision's ``<Name>/raw/`` or in the data set's folder itself.

    Raises:
        UserError: one of the four is missing, or a link leaves the data folder.
    """
    if info.name not in MD5 or not place.named:
        return None
    for folder in (place.folder / "raw", place.folder / str(info.torchvision) / "raw", place.folder):
        files = {part: tuple(_plain_or_gz(folder / name) for name in names) for part, names in _FILES.items()}
        flat = [path for pair in files.values() for path in pair]
        missing = [path.name for path in flat if not path.exists()]
        if len(missing) == len(flat):
            continue
        if missing:
            raise UserError(f"{folder} has idx files of {info.name}, but not {missing[0]}")
        for path in flat:
            place.inside(path)
        return IdxSource(info, folder, files)
    return None


def _plain_or_gz(path: Path) -> Path:
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes.

    Raises:
        UserError: the file is damaged, cut short or holds something else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from None
    if len(data) < 4 or data[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise UserError(f"{path} is not an idx file of unsigned bytes")
    header = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:header]) if len(data) >= header else ()
    if not shape or len(data) - header != int(np.prod(shape)):
        raise UserError(f"{path} is cut short or too long: {len(data)} bytes for shape {shape}; download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
