"""Checkpoints: a run's whole state, in folders that are either whole or not there.

``checkpoints/<experience>-<epoch>/`` (with ``-<batch>`` in the middle of an epoch): ``state.safetensors`` (every
tensor), ``state.json`` (every plain value), the tables so far, and ``manifest.json`` with each file's SHA-256, written
last. A checkpoint is written into a folder of another name and renamed when it is whole. No pickle: nothing in it can
run.
"""

import hashlib
import json
import os
import shutil
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acn_cl.errors import UserError
from acn_cl.runs.files import remove_parts, save_tensors, write_rows
from acn_cl.runs.reading import Damaged, check_file, read_json, read_table
from acn_cl.runs.schema import JOINED, SCHEMA_VERSION, TABLES, check_version
from acn_cl.runs.weights import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
Position = tuple[int, int, int]
"""Experience, epoch and batch that come next, each from 0."""
BEGINNING: Position = (-1, 0, 0)
"""Of a run that has saved nothing."""
MANIFEST, TENSORS, PLAIN = "manifest.json", "state.safetensors", "state.json"
LARGEST_PLAIN = 200_000_000  # bytes of state.json


@dataclass
class Checkpoint:
    """What a run goes on from.

    Args:
        experience: the experience that is to be learned next, or is half learned.
        epoch: how many of its epochs are over.
        batch: how many batches of the next epoch are over.
        tensors: by name.
        plain: JSON values.
        tables: rows by table name, as :data:`acn_cl.runs.schema.TABLES` lists them.
    """

    experience: int
    epoch: int
    batch: int
    tensors: "dict[str, Tensor]" = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def position_of(start: Checkpoint | None) -> Position:
    """Where a run goes on from ``start``; ``None``: it begins."""
    return BEGINNING if start is None else (start.experience, start.epoch, start.batch)


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` into the run's folder and remove all but the last two.

    Raises:
        OSError: it cannot be written; what was there stays, and nothing half-written stays beside it.
    """
    folder = _folder(run)
    folder.mkdir(exist_ok=True)
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        part.mkdir()
        _write(part, checkpoint)
        _replace(part, folder / _name(checkpoint))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for old in _found(run)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The last whole checkpoint of a run, and a line for each later one that is damaged.

    Raises:
        UserError: a checkpoint was written by a later version of the suite, or lies behind a link.
    """
    complaints: list[str] = []
    for folder in reversed(_found(run)):
        try:
            return _read(folder), complaints
        except Damaged as damage:
            complaints.append(f"{folder}: damaged: {damage}; going back to what was before it")
    return None, complaints


def load_checkpoint_at(run: Path, position: Position) -> Checkpoint | None:
    """The checkpoint of a certain position, if it is there and whole.

    Raises:
        UserError: as :func:`load_checkpoint`.
    """
    folder = _folder(run) / _name(Checkpoint(*position))
    if folder not in _found(run):
        return None
    try:
        return _read(folder)
    except Damaged:
        return None


def has_saved_once(run: Path) -> bool:
    """Whether a run has one checkpoint and no more."""
    return len(_found(run)) == 1


def remove_checkpoints(run: Path) -> None:
    """Remove every checkpoint, but for final weights that lie beside one."""
    for folder in _found(run):
        if (folder / WEIGHTS).exists():
            for path in folder.iterdir():
                if path.name != WEIGHTS:
                    path.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
    remove_parts(_folder(run))


def _folder(run: Path) -> Path:
    """Where a run's checkpoints lie: inside the run, since old ones are removed there."""
    folder = run / "checkpoints"
    if folder.is_symlink():
        raise UserError(f"{folder}: a link, and checkpoints are kept inside their run's folder; link the run instead")
    return folder


def _name(checkpoint: Checkpoint) -> str:
    within = f"-{checkpoint.batch}" if checkpoint.batch else ""
    return f"{checkpoint.experience}-{checkpoint.epoch}{within}"


def _found(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest position first; other things in the folder are not looked at."""
    folders = {}
    for path in _folder(run).glob("*/" + MANIFEST):
        position = path.parent.name.split("-")
        if all(part.isdecimal() for part in position) and not path.parent.is_symlink():
            folders[tuple(map(int, position))] = path.parent
    return [folders[position] for position in sorted(folders)]


def _write(part: Path, checkpoint: Checkpoint) -> None:
    save_tensors(part / TENSORS, checkpoint.tensors)
    plain = {"schema_version": SCHEMA_VERSION, "values": checkpoint.plain}
    (part / PLAIN).write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
    for name, schema in TABLES.items():
        write_rows(part / f"{name}.parquet", schema, checkpoint.tables.get(name, []))
    files = sorted(part.iterdir())
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "experience": checkpoint.experience,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "sha256": {path.name: _checksum(path) for path in files},
        "bytes": {path.name: path.stat().st_size for path in files},
    }
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in part.iterdir():
        _flush(path)


def _replace(part: Path, final: Path) -> None:
    """Rename, over an older checkpoint of the same position if there is one; then flush the folder's entry."""
    if final.exists():
        shutil.rmtree(final)
    part.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = _json(folder / MANIFEST)
    check_version(manifest.get("schema_version"), folder / MANIFEST)
    known = _check_sums(folder, manifest)
    try:
        tables: dict[str, Any] = {
            name: read_table(folder / f"{name}.parquet", TABLES[name]).to_dict("records") for name in known
        }
        experience, epoch, batch = (int(manifest[key]) for key in ("experience", "epoch", "batch"))
        plain = _json(folder / PLAIN)
        check_version(plain.get("schema_version"), folder / PLAIN)
        return Checkpoint(experience, epoch, batch, load_file(folder / TENSORS), plain["values"], tables)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise Damaged(f"it cannot be read ({type(error).__name__})") from None


def _check_sums(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """See that every file is what was written. Returns the names of the tables: earlier runs had fewer."""
    sums, sizes = (value if isinstance(value := manifest.get(key), dict) else {} for key in ("sha256", "bytes"))
    tables = [table for table in TABLES if table not in JOINED or f"{table}.parquet" in sums]
    for name in (TENSORS, PLAIN, *(f"{table}.parquet" for table in tables)):
        if not _is_as_written(folder / name, sizes.get(name), sums.get(name)):
            raise Damaged(f"{name} is missing or is not what was written")
    return tables


def _is_as_written(path: Path, size: object, checksum: object) -> bool:
    """By its size first, which costs nothing; in manifests of before versions there is none."""
    try:
        check_file(path, sys.maxsize)
        return size in (None, path.stat().st_size) and _checksum(path) == checksum
    except (Damaged, OSError):
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, LARGEST_PLAIN)
    except Damaged as damage:
        raise Damaged(f"{path.name}: {damage}") from None
