"""Files that are either the old ones or the new ones, never half of one."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from acn_cl.runs.schema import SCHEMA_VERSION, VERSION_KEY

if TYPE_CHECKING:
    from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, flush it to the disk, and rename it to ``path``.

    Raises:
        OSError: the disk is full or the folder is gone; ``path`` is then what it was, and nothing is left beside it.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left; for whoever alone may write here."""
    for part in folder.glob(".*.part"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Weights that two modules share are written under both names."""
    from safetensors.torch import save_file

    apart: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        shared = tensor.untyped_storage().data_ptr() in memory  # which the format refuses
        apart[name] = tensor.contiguous().clone() if shared else tensor.contiguous()
        memory.add(tensor.untyped_storage().data_ptr())
    save_file(apart, path, metadata)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_bytes(text.encode()))


def write_rows(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Write tidy rows as parquet; a row with a key missing or of the wrong type is an error."""
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata({VERSION_KEY: str(SCHEMA_VERSION)}))
    write_atomically(path, lambda part: pq.write_table(table, part))
