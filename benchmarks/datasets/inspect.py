"""What ``acn-cl data list|verify|path`` prints: which data sets are here, where, and whether they are whole."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from acn_cl.benchmarks.datasets.arrays import PARTS, ImageDataset, LabelledImages
from acn_cl.benchmarks.datasets.cache import DamagedError, entry_folder, open_entry, recorded_checksums
from acn_cl.benchmarks.datasets.classes import CIFAR100_COARSE
from acn_cl.benchmarks.datasets.load import dataset_info, load_dataset
from acn_cl.benchmarks.datasets.parquet import ParquetSource
from acn_cl.benchmarks.datasets.search import find_source, require_source
from acn_cl.benchmarks.datasets.source import Source
from acn_cl.benchmarks.datasets.table import DATASETS, DECODED, EMBEDDED, DatasetInfo
from acn_cl.errors import UserError

_NAMED_DUPLICATES = 20


@dataclass(frozen=True)
class FoundDataset:
    """A line of the table, and what is here of it."""

    info: DatasetInfo
    layout: str | None = None
    """None: not found."""
    folder: Path | None = None
    bytes: int | None = None
    """Size on disk of the files it is read from."""
    decoded: bool = False
    """Whether the decoded cache holds it."""
    problem: str | None = None
    """Why what is there cannot be used."""


@dataclass(frozen=True)
class Finding:
    """One result of a verification."""

    level: Literal["ok", "note", "error"]
    text: str


def list_datasets() -> list[FoundDataset]:
    """Every data set of the table; only names and sizes are read, no contents."""
    return [_look_for(info) for info in DATASETS.values()]


def path(name: str) -> Path:
    """The folder that the data set is read from.

    Raises:
        UserError: no such data set, or it is not found.
    """
    info = dataset_info(name)
    if info.loader == EMBEDDED:
        import sklearn.datasets

        return Path(sklearn.datasets.__file__).parent / "data"
    return require_source(info).folder


def verify(name: str) -> list[Finding]:
    """Read the data set through and through; it is decoded into the cache if it is not there yet.

    Raises:
        UserError: there is no data set of that name.
    """
    info = dataset_info(name)
    findings: list[Finding] = []
    try:
        for finding in _verify(info):
            findings.append(finding)
    except UserError as error:
        findings.append(Finding("error", str(error)))
    return findings


def duplicates(dataset: ImageDataset) -> list[tuple[int, int]]:
    """Images that stand in both parts: pairs (row in the training part, row in the test part), by test row."""
    trained = _digests(dataset.train)
    first: dict[bytes, int] = {}
    for row, digest in enumerate(trained):
        first.setdefault(digest, row)
    return [(first[digest], row) for row, digest in enumerate(_digests(dataset.test)) if digest in first]


def _look_for(info: DatasetInfo) -> FoundDataset:
    if info.loader == EMBEDDED:
        return FoundDataset(info, layout="embedded", folder=path(info.name))
    try:
        source = find_source(info)
    except UserError as error:
        return FoundDataset(info, problem=str(error))
    if source is None:
        return FoundDataset(info)
    decoded = (entry_folder(source) / "manifest.json").is_file()
    return FoundDataset(info, source.layout, source.folder, source.size(), decoded)


def _verify(info: DatasetInfo) -> Iterator[Finding]:
    if info.loader != EMBEDDED:
        source = require_source(info)
        yield Finding("ok", f"found as {source.layout} in {source.folder}, {source.size() / 1e6:.0f} MB")
        yield from _verify_source(source)
    dataset = load_dataset(info)
    yield from _verify_contents(dataset)
    if info.loader in (DECODED, EMBEDDED):
        yield _verify_apart(dataset)
    else:
        yield Finding("note", "too large to look for images that stand in both parts")


def _verify_source(source: Source) -> Iterator[Finding]:
    """The source's files against their publisher's checksums and against those of the time they were decoded."""
    source.check_published()
    published = sum(1 for _ in source.published())
    total = len(source.all_files())
    if published:
        yield Finding("ok", f"{published} of {total} files have a published checksum; all match")
    else:
        yield Finding("note", "its files have no published checksums")
    folder = entry_folder(source)
    try:
        open_entry(folder, source)
    except FileNotFoundError:
        yield Finding("note", "not decoded yet")
    except DamagedError as damage:
        yield Finding("error", f"decoded cache {folder}: {damage}; it is decoded again now")
    else:
        recorded, now = recorded_checksums(folder), source.checksums()
        changed = sorted(name for name in now if recorded.get(name) != now[name])
        if changed:
            yield Finding("error", f"changed since it was decoded: {', '.join(changed[:5])} in {source.folder}")
        else:
            yield Finding("ok", f"decoded cache {folder} is whole and the source is what was decoded")
    if source.info.name == "cifar100" and isinstance(source, ParquetSource):
        yield _verify_coarse(source)


def _verify_coarse(source: ParquetSource) -> Finding:
    coarse = np.array(CIFAR100_COARSE)
    for part in PARTS:
        images = source.encoded(part)
        stated = images.coarse_labels()
        if stated is None:
            return Finding("note", "the parquet files have no coarse labels; the published mapping is used")
        wrong = np.flatnonzero(coarse[images.labels] != stated)
        if len(wrong):
            return Finding("error", f"{part} row {wrong[0]}: the coarse label differs from the published mapping")
    return Finding("ok", "coarse labels equal the published mapping")


def _verify_contents(dataset: ImageDataset) -> Iterator[Finding]:
    info = dataset.info
    expected = {"train": info.train_size, "test": info.test_size}
    for part in PARTS:
        labels = dataset.part(part).labels
        counts = np.bincount(labels, minlength=info.classes)
        spread = str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        text = f"{part}: {len(labels)} images, {spread} a class"
        if expected[part] == len(labels):
            yield Finding("ok", text)
        else:
            yield Finding("error", f"{text}; {expected[part]} images are expected")


def _verify_apart(dataset: ImageDataset) -> Finding:
    pairs = duplicates(dataset)
    if not pairs:
        return Finding("ok", "no image stands in both parts")
    named = ", ".join(f"{train}={test}" for train, test in pairs[:_NAMED_DUPLICATES])
    more = f" and {len(pairs) - _NAMED_DUPLICATES} more" if len(pairs) > _NAMED_DUPLICATES else ""
    return Finding("note", f"{len(pairs)} images stand in both parts (train row=test row): {named}{more}")


def _digests(part: LabelledImages) -> Iterator[bytes]:
    """A digest of every image."""
    for start in range(0, len(part), 1000):
        for image in part.images[start : start + 1000]:
            yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
