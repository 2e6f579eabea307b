"""Accuracy matrices of other people, as CSV: read into the rows of ``accuracy.parquet``.

Two forms are known. *Long*: a header with ``trained``, ``evaluated``, ``accuracy`` and, if there are several, ``seed``
and ``experiment``; one row a number. *Square*: numbers alone, T rows of T, row t after training on experience t; one
seed a file, whose name may end in ``-seed<n>``. Empty cells and ``nan`` were not evaluated.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acn_cl.errors import UserError, suggest
from acn_cl.runs.reading import Damaged, check_file
from acn_cl.runs.schema import ACCURACY

NEEDED, ALLOWED = ("trained", "evaluated", "accuracy"), ("experiment", "seed", "trained", "evaluated", "accuracy")
LARGEST = 50_000_000  # bytes
MOST_EXPERIENCES = 7_000
MOST_MATRICES = 1_000
MOST_CELLS = 50_000_000
"""Of all matrices of a file together: 400 MB."""
MISSING = ("", "nan", "na", "-")
Row = tuple[str, int, int, int, float]
"""Experiment, seed, trained, evaluated, accuracy as written."""


@dataclass(frozen=True)
class Matrix:
    """One seed's accuracies.

    Attributes:
        experiment: the column's, or the file's name.
        seed: the column's, the file name's, or 0.
        accuracy: rows as in ``accuracy.parquet``; depth 0 is the whole network, the only one that is known.
        notes: how the file was read, where that was a choice.
    """

    experiment: str
    seed: int
    accuracy: pd.DataFrame
    notes: str


def read_matrices(path: Path) -> tuple[list[Matrix], str]:
    """All matrices of one CSV file, and the file's SHA-256.

    Accuracies are shares, or percent if any is above 1; experiences count from 0, or from 1 if 0 does not occur.

    Raises:
        UserError: the file is not such a CSV; one line, with the line's number.
    """
    data = _read(path)
    rows = [(number, row) for number, row in _csv(path, data) if any(cell.strip() for cell in row)]
    if not rows:
        raise UserError(f"{path}: empty; expected columns {', '.join(NEEDED)}, or a square matrix of numbers")
    numbers = list(_square(path, rows) if all(map(_is_number, rows[0][1])) else _long(path, rows))
    return _matrices(path, numbers), sha256(data).hexdigest()


def _read(path: Path) -> bytes:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        check_file(path, LARGEST)
        return path.read_bytes()
    except Damaged as damage:
        raise UserError(f"{path}: {damage}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _csv(path: Path, data: bytes) -> Iterator[tuple[int, list[str]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text (byte {error.start} is not UTF-8)") from None
    first = text.partition("\n")[0]
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def _is_number(cell: str) -> bool:
    try:
        return cell.strip().lower() in MISSING or np.isfinite(float(cell))
    except ValueError:
        return False


def _square(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Iterator[Row]:
    named = re.fullmatch(r"(.+?)[-_. ]seed[-_]?(\d{1,9})", path.stem)
    experiment, seed = (named[1], int(named[2])) if named else (path.stem, 0)
    for trained, (number, row) in enumerate(rows):
        if len(row) != len(rows):
            raise UserError(
                f"{path}:{number}: {len(row)} numbers in a matrix of {len(rows)} rows; it must be square: row t is the "
                "accuracy on every experience after training on t (empty where it was not evaluated)"
            )
        for evaluated, cell in enumerate(row):
            yield experiment, seed, trained, evaluated, _accuracy(path, number, cell)


def _long(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Iterator[Row]:
    head = [cell.strip().lower() for cell in rows[0][1]]
    for name in head:
        if name not in ALLOWED:
            raise UserError(f"{path}:1: column {name!r} is not known here; {suggest(name, ALLOWED)}")
    for name in NEEDED:
        if head.count(name) != 1:
            raise UserError(f"{path}:1: {'no' if name not in head else 'more than one'} column {name!r}")
    for number, cells in rows[1:]:
        if len(cells) != len(head):
            raise UserError(f"{path}:{number}: {len(cells)} cells under {len(head)} heads")
        row = dict(zip(head, (cell.strip() for cell in cells), strict=True))
        whole = {name: _integer(path, number, name, row) for name in ("seed", "trained", "evaluated")}
        experiment = row.get("experiment", "") or path.stem
        yield experiment, *whole.values(), _accuracy(path, number, row["accuracy"])  # type: ignore[misc]


def _integer(path: Path, number: int, name: str, row: Mapping[str, str]) -> int:
    text = row.get(name, "0")
    if not re.fullmatch(r"-?\d{1,9}", text) or int(text) < (-1 if name == "trained" else 0):
        raise UserError(f"{path}:{number}: {name} is {text[:40]!r}; expected a whole number")
    return int(text)


def _accuracy(path: Path, number: int, cell: str) -> float:
    text = cell.strip().lower()
    value = np.nan if text in MISSING else float(text) if _is_number(text) else -1.0
    if value < 0 or value > 100:
        raise UserError(f"{path}:{number}: {cell.strip()[:40]!r} is not an accuracy (0 to 1, or 0 to 100 in percent)")
    return value


def _matrices(path: Path, rows: Sequence[Row]) -> list[Matrix]:
    table = pd.DataFrame(rows, columns=["experiment", "seed", "trained", "evaluated", "accuracy"])
    table = table.dropna(subset=["accuracy"])
    if table.empty:
        raise UserError(f"{path}: no accuracy in it")
    notes = []
    if table["accuracy"].max() > 1:
        table["accuracy"] /= 100
        notes.append("in percent")
    if table["trained"].min() == table["evaluated"].min() == 1:
        table[["trained", "evaluated"]] -= 1
        notes.append("experiences counted from 1")
    parts: dict[Any, pd.DataFrame] = dict(list(table.groupby(["experiment", "seed"], sort=True)))
    last = [int(part["trained"].max()) for part in parts.values()]
    if len(parts) > MOST_MATRICES or sum(min(t + 1, MOST_EXPERIENCES) ** 2 for t in last) > MOST_CELLS:
        raise UserError(f"{path}: {len(parts):,} matrices of up to {max(last) + 1:,} experiences are too much")
    return [
        Matrix(str(experiment), int(seed), _rows(path, f"{experiment}, seed {seed}", part), ", ".join(notes))
        for (experiment, seed), part in parts.items()
    ]


def _rows(path: Path, name: str, part: pd.DataFrame) -> pd.DataFrame:
    """One seed's numbers as rows of ``accuracy.parquet``, checked for gaps and repetitions."""
    last = int(part["trained"].max())
    if not 0 <= last < MOST_EXPERIENCES:
        raise UserError(f"{path}: {name}: no accuracy after training, or of more than {MOST_EXPERIENCES:,} experiences")
    missing = sorted(set(range(last + 1)) - set(part["trained"]))
    if missing:
        raise UserError(f"{path}: {name}: nothing after training on experience {missing[0]}, though there is on {last}")
    twice = part[part.duplicated(["trained", "evaluated"])]
    if len(twice):
        t, j = twice.iloc[0][["trained", "evaluated"]]
        raise UserError(f"{path}: {name}: two accuracies on experience {j} after training on {t}")
    rows = part[["trained", "evaluated", "accuracy"]].assign(
        step=-1, part="test", condition="clean", depth=0, loss=np.nan, samples=0
    )
    kinds = {column.name: column.type.to_pandas_dtype() for column in ACCURACY}
    return (
        rows[list(kinds)]
        .astype({k: v for k, v in kinds.items() if k not in ("part", "condition")})
        .reset_index(drop=True)
    )
