"""Layout: Hugging Face parquet, one or several shards a part, images as PNG, WebP or JPEG bytes.

Known columns, as in uoft-cs/cifar100, uoft-cs/cifar10, ylecun/mnist, zalando-datasets/fashion_mnist,
zh-plus/tiny-imagenet and ILSVRC/imagenet-1k: ``img`` or ``image`` {bytes, path}; ``fine_label`` or ``label``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acn_cl.benchmarks.datasets.arrays import Chunks, Labels
from acn_cl.benchmarks.datasets.encoded import decode_in_order
from acn_cl.benchmarks.datasets.source import Place, Source, check_labels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("fine_label", "label")
_COARSE_COLUMN = "coarse_label"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class ParquetSource(Source):
    layout: ClassVar[str] = "parquet"

    def chunks(self, part: str) -> Chunks:
        return decode_in_order(self.encoded(part), self.info)

    def encoded(self, part: str) -> "ParquetImages":
        """The part's images, not decoded."""
        return ParquetImages(self.info, self.files[part])

    def published(self) -> Iterator[tuple[Path, str, str]]:
        """SHA-256 from a ``manifest.json`` beside the shards (``{file: {"sha256": ...}}``), where there is one."""
        for path in self.all_files():
            listed = _manifest(path.parent).get(path.name)
            if isinstance(listed, Mapping) and "sha256" in listed:
                yield path, "sha256", str(listed["sha256"])


def find_parquet(info: DatasetInfo, place: Place) -> ParquetSource | None:
    """Shards in ``place.folder`` or up to two folders below it (``data/``, ``plain_text/``, ``cifar100/train/``).

    Raises:
        UserError: a shard or a whole part is missing, or a link leaves the data folder.
    """
    if not place.named:
        return None
    shards = sorted(path for depth in ("", "*/", "*/*/") for path in place.folder.glob(f"{depth}*.parquet"))
    parts = {
        "train": _shards_of(("train",), shards, place.folder),
        "test": _shards_of(info.test_parts, shards, place.folder),
    }
    if not any(parts.values()):
        return None
    for part, files in parts.items():
        if not files:
            raise UserError(f"{place.folder} has parquet files of {info.name}, but none of its {part} part")
        _check_complete(files)
    for path in (*parts["train"], *parts["test"]):
        place.inside(path)
    return ParquetSource(info, place.folder, parts)


def _shards_of(names: tuple[str, ...], shards: Iterable[Path], folder: Path) -> tuple[Path, ...]:
    """The shards whose file, or whose folder below ``folder``, is called after one of ``names``."""
    return tuple(
        path
        for path in shards
        if re.split(r"[-_.]", path.name)[0] in names or (path.parent != folder and path.parent.name in names)
    )


def _check_complete(files: tuple[Path, ...]) -> None:
    """Shards say of themselves how many they are: ``train-00002-of-00004.parquet``."""
    numbered = [match for path in files if (match := _SHARD.search(path.name))]
    if not numbered:
        return
    counts = {int(match[2]) for match in numbered}
    if len(counts) > 1:
        raise UserError(f"{files[0].parent} mixes shards of {' and of '.join(str(n) for n in sorted(counts))} files")
    count = counts.pop()
    missing = set(range(count)) - {int(match[1]) for match in numbered}
    if missing:
        name = _SHARD.sub(f"-{min(missing):05d}-of-{count:05d}", files[0].name)
        raise UserError(f"{files[0].parent}: {len(missing)} of {count} shards missing, the first is {name}")


@lru_cache(maxsize=8)
def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); mend or remove it") from None
    return listed if isinstance(listed, Mapping) else {}


class ParquetImages:
    """The rows of a part's shards, read a row group at a time.

    Reading in order is fast. Reading at random decompresses a whole row group for each image.
    """

    def __init__(self, info: DatasetInfo, files: tuple[Path, ...]) -> None:
        self._info = info
        self._files = [_open(path) for path in files]
        self._paths = files
        groups = [
            (shard, group, file.metadata.row_group(group).num_rows)
            for shard, file in enumerate(self._files)
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(shard, group) for shard, group, _ in groups]
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        self._shard_starts = np.cumsum([0, *(file.metadata.num_rows for file in self._files)])
        self._held: tuple[int, pa.Array] | None = None
        self._lock = Lock()

    @cached_property
    def labels(self) -> Labels:
        columns = [
            self._labels_of(path, file, _column(file, _LABEL_COLUMNS, path))
            for path, file in zip(self._paths, self._files, strict=True)
        ]
        for path, labels in zip(self._paths, columns, strict=True):
            check_labels(self._info, labels, str(path))
        return np.concatenate(columns)

    def coarse_labels(self) -> Labels | None:
        """CIFAR-100's super-class of every row; None where a shard has no such column."""
        if not all(_COARSE_COLUMN in file.schema_arrow.names for file in self._files):
            return None
        pairs = zip(self._paths, self._files, strict=True)
        return np.concatenate([self._labels_of(path, file, _COARSE_COLUMN) for path, file in pairs])

    def _labels_of(self, path: Path, file: Any, column: str) -> Labels:
        kind = file.schema_arrow.field(column).type
        if not pa.types.is_integer(kind):
            raise UserError(f"{path}: column {column} holds {kind}, class ids are integers")
        values = _reading(path, lambda: file.read([column]))[column].to_pylist()
        if None in values:
            raise UserError(f"{path}, row {values.index(None)}: no {column}")
        return np.asarray(values, np.int64)

    def read(self, row: int) -> tuple[bytes, str]:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        shard, number = self._groups[group]
        where = f"{self._paths[shard]}, row {row - self._shard_starts[shard]}"
        value = self._images_of(group, shard, number)[row - int(self._starts[group])].as_py()
        if not isinstance(value, bytes):
            raise UserError(f"{where}: no image")
        return value, where

    def _images_of(self, group: int, shard: int, number: int) -> Any:
        with self._lock:  # an open file has one position, and threads that stream share it
            if self._held is None or self._held[0] != group:
                path, file = self._paths[shard], self._files[shard]
                column = _column(file, _IMAGE_COLUMNS, path)
                table = _reading(path, lambda: file.read_row_group(number, [column]))
                images = table[column].combine_chunks()
                self._held = group, images.field("bytes") if pa.types.is_struct(images.type) else images
            return self._held[1]


def _open(path: Path) -> Any:
    return _reading(path, lambda: pq.ParquetFile(path, page_checksum_verification=True))


def _reading(path: Path, read: Any) -> Any:
    """Call ``read`` and word whatever pyarrow raises on a damaged file."""
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged or not a whole parquet file ({reason}); download it again") from None


def _column(file: Any, names: tuple[str, ...], path: Path) -> str:
    """Whichever of ``names`` the file has."""
    columns = file.schema_arrow.names
    for name in names:
        if name in columns:
            return name
    raise UserError(f"{path} has no column {' or '.join(names)}, only {', '.join(columns)}")
