"""Whatever stands in the files that a report, a comparison or a resumed run reads: a clean error, or a result.

Files are damaged by bytes, as a disk does it, and by values, as somebody does who knows the format.
`FUZZ_EXAMPLES=1000 python -m pytest tests/test_fuzz_report.py` tries a thousand inputs a test.
"""

import io
import json
import os
import shutil
import struct
import warnings
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from acn_cl.cli import status
from acn_cl.errors import UserError
from acn_cl.reports.comparisons import compare
from acn_cl.reports.report import read_content
from acn_cl.reports.words import said
from acn_cl.runs.load import load_runs
from acn_cl.runs.schema import TABLES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=60_000,
    database=None,
    phases=[Phase.generate],  # to make a failing input smaller can take longer than all others together
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

# What stands in a damaged file.

TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "",
        "naive",
        "test",
        "clean",
        "\ud800",
        "\x00",
        "<b>",
        "a\nb",
        "../..",
        "nan",
        "{{x}}",
        "%s",
        "${HOME}",
        "\\end{x}",
    ]
)
INTEGERS = st.integers() | st.sampled_from([-1, 0, 1, 2**31 - 1, -(2**31), 2**63, -(2**63) - 1, 10**400])
VALUES = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), TEXTS)
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def damaged(draw, original: bytes):
    """Pieces cut out, doubled, overwritten; the end missing."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 12))
        data[at : at + length] = draw(st.binary(max_size=6) | st.just(bytes(data[at : at + length]) * 2))
    end = draw(st.none() | st.integers(0, len(data)))
    return bytes(data[:end])


@st.composite
def respelt(draw, tree: object):
    """A value somewhere in a tree of JSON is another one, or gone."""
    if isinstance(tree, dict) and tree and draw(st.booleans()) | (len(tree) > 6):
        key = draw(st.sampled_from(sorted(tree)))
        if draw(st.integers(0, 9)) == 0:
            return {name: value for name, value in tree.items() if name != key}
        return tree | {key: draw(respelt(tree[key]))}
    if isinstance(tree, list) and tree and draw(st.booleans()):
        at = draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], draw(respelt(tree[at])), *tree[at + 1 :]]
    return draw(TREES)


def as_json(value):
    return json.dumps(value).encode()


@st.composite
def retabled(draw, table: pa.Table):
    """Cells, columns or rows of a table are others."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(table.column_names) - 1))  # two may have been given one name
        name = table.column_names[at]
        what = draw(st.sampled_from(["cells", "cells", "cells", "column", "type", "rows", "name"]))
        if what == "cells":
            table = table.set_column(at, name, draw(cells(table.column(at))))
        elif what == "column":
            table = table.remove_column(at) if len(table.column_names) > 1 else table
        elif what == "type":
            kind = draw(
                st.sampled_from([pa.string(), pa.float32(), pa.bool_(), pa.list_(pa.int8()), pa.timestamp("s")])
            )
            table = table.set_column(at, name, pa.nulls(len(table), kind))
        elif what == "rows":
            keep = draw(st.lists(st.integers(0, max(0, len(table) - 1)), max_size=12))
            table = table.take(pa.array(keep, pa.int64())) if len(table) else table
        else:
            table = table.rename_columns(
                [*table.column_names[:at], draw(TEXTS.filter(encodes)), *table.column_names[at + 1 :]]
            )
    return table


@st.composite
def cells(draw, column: pa.ChunkedArray):
    """Some cells of a column hold other values of its type, or none."""
    values = column.to_pylist()
    for _ in range(draw(st.integers(1, 3)) if values else 0):
        at = draw(st.integers(0, len(values) - 1))
        if pa.types.is_integer(column.type):
            new = draw(st.integers(-3, 8) | st.sampled_from([2**31 - 1, -(2**31), 1_000, 100_000]) | st.none())
        elif pa.types.is_floating(column.type):
            new = draw(st.floats() | st.none())
        elif pa.types.is_string(column.type):
            new = draw(TEXTS.filter(encodes) | st.none())
        else:
            new = None
        everywhere = draw(st.booleans())
        values = [new if everywhere or index == at else value for index, value in enumerate(values)]
    return pa.array(values, column.type)


def encodes(text):
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


# What has to come of it.


@contextmanager
def only_clean_errors():
    """No other exception; numpy's remarks about numbers that are none are no concern of this test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = ""
        try:
            yield
        except UserError as error:
            said = str(error)
        assert len(said) < 2_000 and (said.isprintable() or not said)


EVERY = st.integers(0, 4)
"""A report's texts take longer than its numbers, and are made for one input in five."""


def report(*paths, texts=0):
    """A report's numbers, if every run can be read (the others' are known to be fine), and its ``texts`` if 0."""
    if not load_runs(*paths).unreadable:
        content = read_content(list(paths), Path("report"), 0.0)
        for text in content.texts_undrawn().values() if texts == 0 else ():
            text.encode()


def test_a_csv_that_no_headline_measure_is_defined_for(tmp_path):
    """Found by the fuzzing below: its tables have a row, and in it the number of seeds alone."""
    (tmp_path / "theirs.csv").write_bytes(b"0.9,,\n0.5,0.8,\n0.4,0.6,")
    report(tmp_path / "theirs.csv")


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A store of two experiments, with everything that a run may record, and the files of one run, by name."""
    store = tmp_path_factory.mktemp("honest")
    recorded = synthetic.measured(depth=2, experiences=3)
    for seed in (0, 1):
        for name, strategy in (("a", "naive"), ("b", "si")):
            axes = {"strategy.name": strategy}
            answers = np.full((3, 3, 3), 10)
            synthetic.write_run(store, name, seed, axes=axes, experiences=3, depth=2, answers=answers, **recorded)
    spec = store / "a/seed-0/spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {
        "comparisons": [{"axis": "strategy.name", "values": ["naive", "si"], "primary": True}],
    }))  # fmt: skip
    rows = pq.read_table(store / "a/seed-0/accuracy.parquet").to_pylist()
    rows += [row | {"condition": "gaussian-0.1"} for row in rows if row["trained"] == 2]
    rows += [row | {"step": 3, "trained": row["trained"] - 1} for row in rows if row["condition"] == "clean"]
    rows += [row | {"part": "validation"} for row in rows[:5]]
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["accuracy"]), store / "a/seed-0/accuracy.parquet")
    return store, {path.name: path.read_bytes() for path in (store / "a/seed-0").iterdir()}


@pytest.fixture
def store(honest, tmp_path):
    """A copy whose ``a/seed-0`` may be damaged."""
    shutil.copytree(honest[0], tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """What `acn-cl status` prints is made, and thrown away."""
    monkeypatch.setattr("acn_cl.cli.out", Console(file=io.StringIO()))


def test_the_honest_ones_make_a_report(store):
    report(store)


FILES = ["spec.json", "status.json", *(f"{name}.parquet" for name in TABLES)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_run_damaged_by_bytes(honest, store, name):
    @fuzz
    @given(data=damaged(honest[1].get(name, b"")), texts=EVERY)
    def each(data, texts):
        (store / "a/seed-0" / name).write_bytes(data)
        with only_clean_errors():
            report(store, texts=texts)
        with only_clean_errors():
            status([store])
        with only_clean_errors():
            "\n".join(said(compare(load_runs(store), load_runs(store / "b")), "a", "b")).encode()

    each()


@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_json_of_a_run_damaged_by_values(honest, store, name):
    @fuzz
    @given(tree=respelt(json.loads(honest[1][name])), both=st.booleans(), texts=EVERY)
    def each(tree, both, texts):
        for seed in (0, 1) if both else (0,):
            (store / f"a/seed-{seed}" / name).write_bytes(as_json(tree))
        with only_clean_errors():
            report(store, texts=texts)
        with only_clean_errors():
            status([store])

    each()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_run_damaged_by_values(honest, store, name):
    path = store / f"a/seed-0/{name}.parquet"
    original = pq.read_table(path) if path.exists() else TABLES[name].empty_table()

    @fuzz
    @given(table=retabled(original), texts=EVERY)
    def each(table, texts):
        pq.write_table(table, path)
        with only_clean_errors():
            report(store, texts=texts)

    each()


LONG = b"experiment,seed,trained,evaluated,accuracy\nours,0,0,0,0.9\nours,0,1,0,0.5\nours,0,1,1,0.8\n"
SQUARE = b"0.9,,\n0.5,0.8,\n0.4,0.6,0.9\n"


@pytest.mark.parametrize("original", [LONG, SQUARE], ids=["long", "square"])
def test_somebodys_csv(store, tmp_path, original):
    pieces = [
        b",",
        b"\n",
        b"0.5",
        b"1",
        b"100",
        b"nan",
        b"trained",
        b"-1",
        b'"',
        b";",
        b"\t",
        b"\xff",
        b"1e999",
        b"9" * 30,
    ]

    @fuzz
    @given(data=damaged(original) | st.lists(st.sampled_from(pieces), max_size=40).map(b"".join), texts=EVERY)
    def each(data, texts):
        (tmp_path / "theirs.csv").write_bytes(data)
        with only_clean_errors():
            report(tmp_path / "theirs.csv", texts=texts)
        with only_clean_errors():
            report(store, tmp_path / "theirs.csv", texts=texts)

    each()


def test_a_page_that_is_to_be_verified(store, tmp_path):
    from acn_cl.reports import make_report
    from acn_cl.reports.verification import verify

    page = make_report([store], tmp_path / "report")
    original = page.read_bytes()
    at = original.index(b'"folders"')

    @fuzz
    @given(
        data=damaged(original)
        | damaged(original[at - 400 : at + 400]).map(lambda d: original[: at - 400] + d + original[at + 400 :])
    )
    def each(data):
        page.write_bytes(data)
        with only_clean_errors():
            verify(page)

    each()


# What a resumed run reads.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The files of one checkpoint, by name."""
    import torch

    from acn_cl.runs.checkpoint import Checkpoint, save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    row = dict.fromkeys(TABLES["layers"].names, 0) | {"quantity": "gradient_norm", "value": 0.5}
    tensors = {"network.a": torch.ones(3), "optimizer.0.step": torch.tensor(2)}
    save_checkpoint(folder, Checkpoint(1, 2, 0, tensors, {"x": [1, "y"]}, {"layers": [row]}))
    return {path.name: path.read_bytes() for path in (folder / "checkpoints/1-2").iterdir()}


def check_checkpoint(run, files, *, signed):
    """Loaded whole, or complained of; with checksums that match, if somebody has seen to that."""
    from acn_cl.runs.checkpoint import load_checkpoint

    folder = run / "checkpoints/1-2"
    folder.mkdir(parents=True, exist_ok=True)
    if signed:
        manifest = json.loads(files["manifest.json"])
        manifest["sha256"] = {name: sha256(data).hexdigest() for name, data in files.items()}
        manifest["bytes"] = {name: len(data) for name, data in files.items()}
        files = files | {"manifest.json": as_json(manifest)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with only_clean_errors():
        found, complaints = load_checkpoint(run)
        assert (found is None) == bool(complaints)
        if found is not None and not signed:
            assert found.tensors["network.a"].tolist() == [1, 1, 1], "what is not what was written is never used"


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors", "layers.parquet"])
def test_a_file_of_a_checkpoint_damaged_by_bytes(checkpoint, tmp_path, name):
    @fuzz
    @given(data=damaged(checkpoint[name]), signed=st.booleans())
    def each(data, signed):
        check_checkpoint(tmp_path, checkpoint | {name: data}, signed=signed and name != "manifest.json")

    each()


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_json_of_a_checkpoint_damaged_by_values(checkpoint, tmp_path, name):
    @fuzz
    @given(tree=respelt(json.loads(checkpoint[name])))
    def each(tree):
        check_checkpoint(tmp_path, checkpoint | {name: as_json(tree)}, signed=name != "manifest.json")

    each()


def split_header(data):
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header, rest):
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + rest


def test_the_head_of_a_safetensors_file_damaged_by_values(checkpoint, tmp_path):
    """Names, types, shapes and offsets that lie; the same bytes as weights, too."""
    from acn_cl.runs.weights import load_weights

    header, rest = split_header(checkpoint["state.safetensors"])
    weights = tmp_path / "checkpoints/9-0/model.safetensors"
    weights.parent.mkdir(parents=True)

    @fuzz
    @given(tree=respelt(header), length=st.none() | st.integers(0, 2**64 - 1))
    def each(tree, length):
        data = joined(tree, rest)
        data = data if length is None else struct.pack("<Q", length) + data[8:]
        check_checkpoint(tmp_path, checkpoint | {"state.safetensors": data}, signed=True)
        weights.write_bytes(data)
        with only_clean_errors():
            assert all(np.isfinite(tensor.numel()) for tensor in load_weights(tmp_path).values())

    each()
