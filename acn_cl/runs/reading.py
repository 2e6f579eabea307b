"""Files that one may have been given, read with bounds: a bad one costs a line, not the memory or an afternoon.

Before a file's content is in memory it is known to be an ordinary file (a pipe would wait for ever) of a size that a
run could have written. JSON and parquet hold values only: nothing in them can run, and nothing that they name is
imported.
"""

import json
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acn_cl.runs.schema import VERSION_KEY, check_version

LARGEST_JSON = 10_000_000  # bytes; a spec has some thousand
LARGEST_TABLE = 500_000_000  # bytes, also when unpacked
MOST_ROWS = 5_000_000
MOST_TEXT = 200_000_000  # characters of one column
DEEPEST = 50
"""Levels of nesting in JSON."""


class Damaged(Exception):
    """A file is not what a run writes. The message says why, and leaves the file's name to whoever catches it."""


def check_file(path: Path, largest: int) -> None:
    """See that ``path`` is an ordinary file of at most ``largest`` bytes.

    Raises:
        Damaged: it is not.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise Damaged("missing") from None
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):
        raise Damaged("not an ordinary file")
    if found.st_size > largest:
        raise Damaged(f"{found.st_size:,} bytes are too many for such a file (at most {largest:,})")


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Damaged: it is missing, too large, too deep, not JSON, or not an object.
    """
    check_file(path, largest)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_int=_integer)
    except RecursionError:
        raise Damaged("cannot be read as JSON (nested too deep)") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"cannot be read as JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise Damaged("not a JSON object")
    _check_values(value)
    return value


def _integer(text: str) -> int:
    """Up to the 128 bits of a random generator's state; a larger one would not even fit into a float."""
    if len(text) > 39:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _check_values(value: Any) -> None:
    """Level by level, so that depth costs no stack."""
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return
        texts = (item for item in level if isinstance(item, str))
        if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
            raise Damaged("cannot be read as JSON (half a character, which no text can hold)")
        mappings = [item for item in level if isinstance(item, dict)]
        level = [inner for item in level if isinstance(item, list) for inner in item]
        level += [inner for item in mappings for pair in item.items() for inner in pair]
    raise Damaged("cannot be read as JSON (nested too deep)")


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """The columns of ``schema`` from a parquet file; others are not looked at.

    Raises:
        Damaged: it is missing, too large, packed to become too large, not parquet, or a column is missing or wrong.
        UserError: a later version of the suite has written it.
    """
    check_file(path, LARGEST_TABLE)
    try:
        return _table(path, schema)
    except (OSError, ValueError, KeyError, OverflowError, pa.ArrowException) as error:
        raise Damaged(f"cannot be read as parquet ({one_line(error)})") from None


def _table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        check_version(_version(file.schema_arrow), path)
        _check_counts(file.metadata)
        _check_names(schema, file.schema_arrow.names)
    texts = [column.name for column in schema if pa.types.is_string(column.type)]
    # As a dictionary a text costs its length once, however many rows claim it.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read(columns=schema.names)
    return pd.DataFrame(pa.table({column.name: _column(table, column) for column in schema}).to_pandas())


def _check_names(schema: pa.Schema, names: list[str]) -> None:
    for name in schema.names:
        if names.count(name) != 1:
            raise Damaged(f"{'no' if name not in names else 'more than one'} column {name!r}")


def _version(schema: pa.Schema) -> object:
    written = (schema.metadata or {}).get(VERSION_KEY)
    if written is None:
        return None
    return int(written) if written.isdigit() and len(written) < 10 else written


def _check_counts(metadata: pq.FileMetaData) -> None:
    """What the file says of itself, before memory is taken for it."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    if rows > MOST_ROWS:
        raise Damaged(f"{rows:,} rows are too many for such a table (at most {MOST_ROWS:,})")
    if (size := sum(group.total_byte_size for group in groups)) > LARGEST_TABLE:
        raise Damaged(f"{size:,} bytes unpacked are too many for such a table (at most {LARGEST_TABLE:,})")


def _column(table: pa.Table, wanted: pa.Field) -> pa.ChunkedArray:
    found = table.column(wanted.name)
    if pa.types.is_dictionary(found.type):
        _check_texts(found, wanted.name)
    try:
        column = found.cast(wanted.type)
    except pa.ArrowException as error:
        raise Damaged(f"column {wanted.name!r} is not {wanted.type} ({one_line(error)})") from None
    if column.null_count and not pa.types.is_floating(wanted.type):
        raise Damaged(f"column {wanted.name!r} has empty cells")
    return column


def _check_texts(column: pa.ChunkedArray, name: str) -> None:
    lengths = [pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks]
    if len(column) * max(lengths, default=0) > MOST_TEXT:
        raise Damaged(f"column {name!r} has texts of up to {max(lengths):,} characters; a run's are names")


def one_line(error: Exception) -> str:
    """The beginning of an error's message, for the end of ours."""
    return " ".join(str(error).split())[:160]
