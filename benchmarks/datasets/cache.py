"""The decoded cache: a data set's images as memory-mapped uint8 arrays beside a manifest of checksums.

``<cache>/<data set>-<size>-<source>/`` holds ``train-images.npy``, ``train-labels.npy``, the same two of the test part,
and ``manifest.json``. The folder appears in one rename, under a lock, once everything in it is written and flushed, so
that a process that is killed, or two that start together, never leave half a cache. Every opening checks every byte
against the manifest (0.1 s for CIFAR-100) and the source's stamp against the recorded one; what does not match is named
in a warning and decoded again.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from acn_cl.benchmarks.datasets.arrays import PARTS, Chunks, ImageDataset, LabelledImages, dataset_checksum
from acn_cl.benchmarks.datasets.source import Source, file_digest
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

log = logging.getLogger(__name__)

_SCHEMA = 1
_MANIFEST = "manifest.json"
_KEYS = {"stamp", "source", "arrays"}

Watch = Callable[[str, Chunks], Chunks]
"""Wraps the chunks of a part while they are decoded: where progress is shown."""


class DamagedError(Exception):
    """What is in the cache is not what was written there. Decoding again mends it."""


def cache_folder() -> Path:
    """``ACN_CL_CACHE``, or ``~/.cache/acn_cl/decoded``."""
    return Path(os.environ.get("ACN_CL_CACHE") or "~/.cache/acn_cl/decoded").expanduser()


def entry_folder(source: Source) -> Path:
    """Where the decoded arrays of ``source`` are kept."""
    height, width = source.info.image_size
    origin = hashlib.sha256(f"{source.layout}\0{source.folder.resolve()}".encode()).hexdigest()[:12]
    return cache_folder() / f"{source.info.name}-{height}x{width}-{origin}"


def open_or_decode(source: Source, watch: Watch = lambda part, chunks: chunks) -> ImageDataset:
    """The data set's arrays from the cache; decoded into it first where it has none, or only damaged ones.

    Args:
        source: the data set as it lies on disk.
        watch: called with each part's chunks while they are decoded.

    Raises:
        UserError: the source is damaged, or the cache cannot be written.
    """
    folder = entry_folder(source)
    with _in_words(folder):
        with suppress(FileNotFoundError, NotADirectoryError, DamagedError):
            return open_entry(folder, source)  # without the lock: a whole cache may lie where nothing can be written
        with _lock(folder):
            # Another process may have finished the same work while this one waited for the lock.
            found = _open_if_whole(folder, source)
            if found is None:
                _decode_into(folder, source, watch)
                found = open_entry(folder, source)
            return found


def open_entry(folder: Path, source: Source) -> ImageDataset:
    """Open and check what is in the cache.

    Raises:
        FileNotFoundError: there is nothing.
        DamagedError: what there is does not match its manifest or the source; the message says what.
    """
    manifest = _read_manifest(folder)
    if manifest["stamp"] != source.stamp():
        raise DamagedError(f"{source.folder} has been changed since it was decoded")
    stamps = tuple((folder / name).stat().st_mtime_ns for name in (_MANIFEST, *sorted(manifest["arrays"])))
    parts = _open_arrays(folder, stamps)
    checksum = dataset_checksum(manifest["arrays"])
    return ImageDataset(source.info, parts["train"], parts["test"], source.layout, source.folder, checksum)


def recorded_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the source's files when they were decoded.

    Raises:
        FileNotFoundError, DamagedError: as :func:`open_entry`.
    """
    return dict(_read_manifest(folder)["source"])


def _open_if_whole(folder: Path, source: Source) -> ImageDataset | None:
    try:
        return open_entry(folder, source)
    except (FileNotFoundError, NotADirectoryError):
        if folder.exists():
            log.warning("decoded cache %s is incomplete; decoding again", folder)
    except DamagedError as damage:
        log.warning("decoded cache %s: %s; decoding again", folder, damage)
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{_MANIFEST} is not readable ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != _SCHEMA or not manifest.keys() >= _KEYS:
        raise DamagedError(f"{_MANIFEST} does not follow schema {_SCHEMA}")
    return manifest


@lru_cache(maxsize=32)
def _open_arrays(folder: Path, stamps: tuple[int, ...]) -> dict[str, LabelledImages]:
    """The arrays of both parts, every byte checked: once a process for each state (``stamps``) of the files."""
    for name, checksum in _read_manifest(folder)["arrays"].items():
        if file_digest(folder / name) != checksum:
            raise DamagedError(f"the checksum of {name} does not match")
    return {
        part: LabelledImages(*(np.load(folder / f"{part}-{what}.npy", mmap_mode="r") for what in ("images", "labels")))
        for part in PARTS
    }


def _decode_into(folder: Path, source: Source, watch: Watch) -> None:
    """Write a new entry beside ``folder`` and move it there. The lock is held."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a process that was killed: nobody else writes under the lock
    log.info("decoding %s from %s, once", source.info.name, source.folder)
    stamp = source.stamp()
    source.check_published()
    work = folder.parent / f".{folder.name}.{os.getpid()}"
    work.mkdir()
    try:
        arrays: dict[str, str] = {}
        for part in PARTS:
            arrays |= _write_part(work, part, watch(part, source.chunks(part)), source.info)
        manifest = {
            "schema": _SCHEMA,
            "dataset": source.info.name,
            "layout": source.layout,
            "folder": str(source.folder),
            "stamp": stamp,
            "source": source.checksums(),
            "arrays": arrays,
        }
        _write_flushed(work / _MANIFEST, json.dumps(manifest, indent=1).encode())
        if folder.exists():
            os.replace(folder, work / "damaged")
            os.replace(work, folder)
            shutil.rmtree(folder / "damaged")
        else:
            os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_part(folder: Path, part: str, chunks: Chunks, info: DatasetInfo) -> dict[str, str]:
    """Write a part's two arrays; returns their file names and SHA-256."""
    labels = []
    images = folder / f"{part}-images.npy"
    with images.open("wb") as file:
        rows = 0
        _write_header(file, (0, *info.image_shape))
        for pixels, ids in chunks:
            # write(), not a writable memory map: on a full disk a map dies of SIGBUS, a write raises ENOSPC.
            file.write(np.ascontiguousarray(pixels).data)
            labels.append(ids)
            rows += len(ids)
        file.seek(0)
        _write_header(file, (rows, *info.image_shape))
        _flush(file)
    with (folder / f"{part}-labels.npy").open("wb") as file:
        np.save(file, np.concatenate(labels))
        _flush(file)
    return {name: file_digest(folder / name) for name in (images.name, f"{part}-labels.npy")}


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """numpy's header of a uint8 array. numpy leaves room for the first axis to grow, so that its length can change."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        yield


@contextmanager
def _in_words(folder: Path) -> Iterator[None]:
    """A read-only folder or a full disk, in one line; the source's own errors pass through."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot use the decoded cache {folder}: {error.strerror or error}; "
            f"set ACN_CL_CACHE to a folder with room that can be written"
        ) from None
