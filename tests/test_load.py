"""Run folders read back: what was written comes out; what is damaged is named; nothing is dropped silently."""

import json
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from acn_cl import metrics
from acn_cl.errors import UserError
from acn_cl.runs.load import load_runs, natural
from acn_cl.runs.schema import CONFUSION
from acn_cl.spec import flatten

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))


@pytest.fixture
def store(tmp_path):
    return synthetic.write_grid(tmp_path / "runs", seeds=(0, 1))


def rewrite(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def test_a_matrix_comes_back_as_it_was_written(tmp_path):
    cube = synthetic.accuracy_by_depth(7)
    synthetic.write_run(tmp_path, "a", 7, rows=synthetic.accuracy_rows(cube))
    runs = load_runs(tmp_path)
    np.testing.assert_array_equal(runs.by_depth("a", 7), cube)
    np.testing.assert_array_equal(runs.matrix("a", 7), cube[..., -1])
    np.testing.assert_array_equal(runs.matrix("a", 7, depth=1), cube[..., 1])
    assert np.isnan(runs.initial("a", 7)).all()
    assert runs.run("a", 7).test_samples == 4 * synthetic.SAMPLES


def test_rows_of_other_parts_conditions_and_moments_stay_out_of_the_matrix(tmp_path):
    cube = synthetic.accuracy_by_depth(0, experiences=3)
    rows = synthetic.accuracy_rows(cube)
    noise = [{**row, "accuracy": 0.0, "condition": "gaussian"} for row in rows]
    noise += [{**row, "accuracy": 0.0, "part": "validation"} for row in rows]
    within = [{**row, "accuracy": 0.0, "step": 5} for row in rows]
    before = [{**row, "accuracy": 0.1, "trained": -1} for row in rows if row["trained"] == 2]
    ahead = [{**row, "accuracy": 0.2, "evaluated": 3} for row in rows if row["evaluated"] == 0]
    shuffled = np.random.default_rng(0).permutation([*rows, *noise, *within, *before, *ahead]).tolist()
    synthetic.write_run(tmp_path, "a", 0, rows=shuffled)
    runs = load_runs(tmp_path)
    np.testing.assert_array_equal(runs.by_depth("a", 0), cube)
    np.testing.assert_array_equal(runs.initial("a", 0), [0.1, 0.1, 0.1])


def test_a_trace_puts_the_moments_in_order(tmp_path):
    def row(trained, step, evaluated, accuracy):
        return {**synthetic.accuracy_rows(np.ones((1, 1, 1)))[0], "trained": trained, "step": step} | {
            "evaluated": evaluated,
            "accuracy": accuracy,
        }

    rows = [
        row(-1, 10, 0, 0.4),  # while 0 is learned
        row(0, -1, 0, 0.9),  # its end
        row(0, 10, 0, 0.2),  # while 1 is learned
        row(0, 10, 1, 0.5),
        row(0, 9, 0, 0.3),
        row(0, 9, 1, 0.4),
        row(1, -1, 0, 0.6),  # its end
        row(1, -1, 1, 0.8),
    ]
    synthetic.write_run(tmp_path, "a", 0, rows=rows[::-1])
    A, learning = load_runs(tmp_path).run("a", 0).trace()
    np.testing.assert_array_equal(learning, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(A[:, 0], [0.4, 0.9, 0.3, 0.2, 0.6])
    np.testing.assert_array_equal(A[:, 1], [np.nan, np.nan, 0.4, 0.5, 0.8])
    assert metrics.stability_gap(A, learning) == pytest.approx(0.4)


def test_answers_come_back_as_they_were_written(tmp_path):
    counts = synthetic.answers(3)
    synthetic.write_run(tmp_path, "a", 3, answers=counts, scenario="class-incremental")
    synthetic.write_run(tmp_path, "older", 0)
    runs = load_runs(tmp_path)
    np.testing.assert_array_equal(runs.run("a", 3).answers, counts)
    assert runs.run("older", 0).answers.shape == (0, 0, 0) and not runs.unreadable
    assert list(runs.confusion.columns) == ["experiment", "seed", "trained", "evaluated", "predicted", "count"]
    assert len(runs.confusion) == sum((t + 1) ** 2 for t in range(4))


def confusion(run, **columns):
    """Give a run a table of answers with one row, or the values that are given."""
    row = {"trained": 1, "evaluated": 0, "predicted": 1, "count": 3} | columns
    pq.write_table(pa.Table.from_pylist([row], schema=CONFUSION), run / "confusion.parquet")


def test_tables_are_tidy_with_experiment_and_seed_in_front(store):
    runs = load_runs(store)
    for table, names in ((runs.accuracy, synthetic.ACCURACY.names), (runs.timing, synthetic.TIMING.names)):
        assert list(table.columns) == ["experiment", "seed", *names]
    assert len(runs.accuracy) == sum(len(run.accuracy) for run in runs.runs)
    assert set(runs.layers["experiment"]) == set(runs.experiments)


@pytest.mark.parametrize("inside", ["", "ac_mixer-si", "ac_mixer-si/seed-1"])
def test_a_store_an_experiment_or_a_run_may_be_named(store, inside):
    found = load_runs(store / inside)
    assert len(found.runs) == {"": 8, "ac_mixer-si": 2, "ac_mixer-si/seed-1": 1}[inside]
    assert found.unreadable == ()


def test_folders_are_merged_and_copies_count_once(store, tmp_path):
    elsewhere = synthetic.write_grid(tmp_path / "elsewhere", seeds=(2,))
    shutil.copytree(store / "ac_mixer-si", elsewhere / "ac_mixer-si", dirs_exist_ok=True)
    runs = load_runs(store, elsewhere, store)
    assert [run.seed for run in runs.runs if run.experiment == "ac_mixer-si"] == [0, 1, 2]
    assert len(runs.runs) == 12


def test_two_different_runs_of_one_name_are_an_error(store, tmp_path):
    other = synthetic.write_run(tmp_path / "other", "ac_mixer-si", 0, forgets=0.9)
    with pytest.raises(UserError, match=rf"'ac_mixer-si' seed 0 is in two folders and differs: .*{other}"):
        load_runs(store, tmp_path / "other")


@pytest.mark.parametrize(
    ("begun_with", "message"),
    [
        ({"accumulate": 1, "test_part": True, "optimizer": {"lr": 0.1, "clip_norm": None}}, None),
        ({"accumulate": 2}, r"accumulate: 1, 2"),
    ],
)
def test_a_key_that_an_earlier_version_did_not_have_is_at_its_default(tmp_path, begun_with, message):
    """Seeds of one experiment, run before an update and after it."""
    synthetic.write_run(tmp_path, "x", 0, settings={"optimizer": {"lr": 0.1}})
    synthetic.write_run(tmp_path, "x", 1, settings={"optimizer": {"lr": 0.1}, **begun_with})
    if message is None:
        assert [run.seed for run in load_runs(tmp_path).runs] == [0, 1]
    else:
        with pytest.raises(UserError, match=message):
            load_runs(tmp_path)


def test_seeds_of_one_experiment_must_share_its_settings(tmp_path):
    synthetic.write_run(tmp_path / "a", "x", 0, settings={"epochs": 1})
    synthetic.write_run(tmp_path / "b", "x", 1, settings={"epochs": 5, "device": "cuda"})
    with pytest.raises(UserError, match=r"'x' was run with different settings \(epochs: 1, 5\)"):
        load_runs(tmp_path / "a", tmp_path / "b")


def test_finished_seeds_of_one_experiment_must_have_learned_the_same(tmp_path):
    synthetic.write_run(tmp_path, "x", 0, experiences=4)
    synthetic.write_run(tmp_path, "x", 1, rows=synthetic.accuracy_rows(synthetic.accuracy_by_depth(1, experiences=3)))
    with pytest.raises(UserError, match=r"'x' learned 4 experiences at 4 depths in .*seed-0 and 3 at 4 in .*seed-1"):
        load_runs(tmp_path)
    synthetic.write_run(tmp_path, "y", 0, experiences=4)
    shutil.rmtree(tmp_path / "x/seed-1")
    unfinished = synthetic.accuracy_rows(synthetic.accuracy_by_depth(1, experiences=3))
    synthetic.write_run(tmp_path, "x", 1, rows=unfinished, state="failed")
    assert len(load_runs(tmp_path).runs) == 3, "one that is not done yet has learned less"


def test_the_machine_may_differ_between_seeds(tmp_path):
    synthetic.write_run(tmp_path / "a", "x", 0, settings={"device": "cpu"})
    synthetic.write_run(tmp_path / "b", "x", 1, settings={"device": "cuda"})
    assert len(load_runs(tmp_path / "a", tmp_path / "b").finished("x")) == 2


@pytest.mark.parametrize("state", ["failed", "running"])
def test_unfinished_runs_are_there_but_not_averaged(store, state):
    synthetic.write_run(store, "ac_mixer-si", 5, axes={"backbone.name": "ac_mixer", "strategy.name": "si"}, state=state)
    runs = load_runs(store)
    (run,) = runs.unfinished()
    assert run.status.state == {"failed": "failed", "running": "died"}[state]
    assert 5 not in [done.seed for done in runs.finished("ac_mixer-si")]


def test_a_run_is_running_while_its_lock_is_held(store):
    path = synthetic.write_run(store, "alone", 0, state="running")
    with FileLock(path / "run.lock"):
        assert load_runs(store).run("alone", 0).status.state == "running"


def test_a_run_just_started_has_no_rows_yet(tmp_path):
    path = synthetic.write_run(tmp_path, "a", 0, state="running")
    for table in path.glob("*.parquet"):
        table.unlink()
    run = load_runs(tmp_path).run("a", 0)
    assert run.by_depth.shape == (0, 0, 1)
    assert len(run.layers) == 0


def respell(run, key, value):
    """Set a dotted key of a run's spec."""
    spec = json.loads((run / "spec.json").read_text())
    *sections, last = key.split(".")
    inner = spec
    for section in sections:
        inner = inner[section]
    inner[last] = value
    (run / "spec.json").write_text(json.dumps(spec))


DAMAGE = {
    "no spec": (lambda run: (run / "spec.json").unlink(), r"spec\.json: missing"),
    "half a spec": (lambda run: (run / "spec.json").write_text('{"id": "a'), r"spec\.json: cannot be read as JSON"),
    "another's spec": (lambda run: (run / "spec.json").write_text("[1, 2]"), r"spec\.json: not a JSON object"),
    "no seed": (lambda run: (run / "spec.json").write_text('{"id": "a"}'), r"spec\.json: 'seed' is None"),
    "a spec without end": (
        lambda run: (run / "spec.json").write_text("[" * 100_000),
        r"spec\.json: cannot be read as JSON",
    ),
    **{
        f"{key} is {value!r}": (partial(respell, key=key, value=value), rf"spec\.json: '{key}' is .*; expected")
        for key, value in {
            "id": 3,
            "seed": True,
            "experiment": [],
            "experiment.stream": None,
            "axes": ["backbone"],
            "versions": "torch 2",
            "parameters": "many",
        }.items()
    },
    "an experience of the year 2000000000": (
        lambda run: rewrite(
            run / "accuracy.parquet",
            lambda table: table.set_column(0, "trained", pa.array([2_000_000_000] * len(table), pa.int32())),
        ),
        r"accuracy\.parquet: damaged \(2000000001 experiences",
    ),
    "future": (
        lambda run: (run / "spec.json").write_text('{"id": "a", "seed": 0, "schema_version": 99}'),
        r"spec\.json: schema version 99, of a later acn-cl; this one reads up to 1",
    ),
    "no status": (lambda run: (run / "status.json").unlink(), r"status\.json"),
    "half a status": (lambda run: (run / "status.json").write_text('{"state'), r"status\.json: damaged"),
    "no table": (lambda run: (run / "accuracy.parquet").unlink(), r"accuracy\.parquet: missing, though .* done"),
    "half a table": (
        lambda run: (run / "accuracy.parquet").write_bytes((run / "accuracy.parquet").read_bytes()[:-200]),
        r"accuracy\.parquet: cannot be read as parquet",
    ),
    "empty file": (lambda run: (run / "timing.parquet").write_bytes(b""), r"timing\.parquet: cannot be read"),
    "a pickle": (
        lambda run: (run / "layers.parquet").write_bytes(pickle.dumps({"a": 1})),
        r"layers\.parquet: cannot be read as parquet",
    ),
    "no column": (
        lambda run: rewrite(run / "accuracy.parquet", lambda table: table.drop_columns("depth")),
        r"accuracy\.parquet: no column 'depth'",
    ),
    "text for numbers": (
        lambda run: rewrite(
            run / "accuracy.parquet",
            lambda table: table.set_column(1, "step", pa.array(["first"] * len(table))),
        ),
        r"accuracy\.parquet: column 'step' is not int32",
    ),
    "percent": (
        lambda run: rewrite(
            run / "accuracy.parquet",
            lambda table: table.set_column(6, "accuracy", pa.array([55.0] * len(table))),
        ),
        r"accuracy\.parquet: column 'accuracy' has values outside 0\.\.1",
    ),
    "empty cells": (
        lambda run: rewrite(
            run / "accuracy.parquet",
            lambda table: table.set_column(2, "evaluated", pa.nulls(len(table), pa.int32())),
        ),
        r"accuracy\.parquet: column 'evaluated' has empty cells",
    ),
    "another part": (
        lambda run: rewrite(
            run / "accuracy.parquet",
            lambda table: table.set_column(3, "part", pa.array(["%s"] * len(table))),
        ),
        r"accuracy\.parquet: column 'part' has values other than test and validation",
    ),
    "a column that is not there": (
        lambda run: rewrite(run / "accuracy.parquet", lambda table: table.drop_columns("part")),
        r"accuracy\.parquet: no column 'part'",
    ),
    "rows twice": (
        lambda run: rewrite(run / "accuracy.parquet", lambda table: pa.concat_tables([table, table])),
        r"accuracy\.parquet: two rows for trained 0, step -1",
    ),
    "answers below nothing": (partial(confusion, count=-1), r"confusion\.parquet: column 'count' has values below 0"),
    "answers of the year 2000000000": (
        partial(confusion, predicted=2_000_000_000),
        r"confusion\.parquet: damaged \(2000000001 experiences\)",
    ),
    "answers twice": (
        lambda run: (
            confusion(run),
            rewrite(run / "confusion.parquet", lambda table: pa.concat_tables([table, table])),
        ),
        r"confusion\.parquet: two rows for trained 1, evaluated 0, predicted 1",
    ),
    "half a table of answers": (
        lambda run: (run / "confusion.parquet").write_bytes(b"PAR1"),
        r"confusion\.parquet: cannot be read as parquet",
    ),
    "no rows": (
        lambda run: rewrite(run / "accuracy.parquet", lambda table: table.slice(0, 0)),
        r"accuracy\.parquet: no rows, though",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named_in_one_line_and_the_others_are_read(store, damage):
    spoil, says = DAMAGE[damage]
    spoil(store / "ac_mixer-si" / "seed-1")
    runs = load_runs(store)
    assert len(runs.runs) == 7
    (entry,) = runs.unreadable
    assert entry.path.name == "seed-1"
    assert "\n" not in entry.reason
    with pytest.raises(UserError, match=says):
        raise UserError(entry.reason)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "not a folder"),
        (lambda path: path.mkdir(), "no runs in it"),
    ],
)
def test_a_folder_without_runs_is_an_error(tmp_path, prepare, says):
    prepare(tmp_path / "runs")
    with pytest.raises(UserError, match=says):
        load_runs(tmp_path / "runs")


def test_wrong_names_get_the_right_ones(store):
    runs = load_runs(store)
    with pytest.raises(UserError, match=r"did you mean 'ac_mixer-si'"):
        runs.matrix("ac_mixer-sj", 0)
    with pytest.raises(UserError, match=r"no seed 9 of 'ac_mixer-si' in these runs; known: 0, 1"):
        runs.matrix("ac_mixer-si", 9)
    with pytest.raises(UserError, match="no depth 4; this run has 0 to 3"):
        runs.matrix("ac_mixer-si", 0, depth=4)


def test_nothing_that_a_run_names_is_imported(tmp_path):
    path = synthetic.write_run(tmp_path, "a", 0)
    spec = json.loads((path / "spec.json").read_text())
    spec["experiment"]["strategy"]["name"] = "evil_module:Strategy"
    (path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    code = "from acn_cl.runs.load import load_runs; import sys; load_runs('.'); assert 'evil_module' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_flatten_names_settings_as_set_does():
    nested = {"backbone": {"name": "x", "more": {"depth": 5}}, "epochs": 1}
    assert flatten(nested) == {"backbone.name": "x", "backbone.more.depth": 5, "epochs": 1}


@given(st.lists(st.tuples(st.sampled_from(["depth", "lambda", ""]), st.integers(0, 10**30)), unique=True))
def test_ids_stand_in_the_order_of_their_numbers(pairs):
    ids = [f"{name}{number}-si" for name, number in pairs]
    assert sorted(ids, key=natural) == [f"{name}{number}-si" for name, number in sorted(pairs)]
    assert natural("a01") != natural("a1")
