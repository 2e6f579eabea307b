"""Nothing that somebody gives you runs, leads out of its folder, or fills your memory.

First the sources: nobody in the project calls what could run data. Then folders of runs made by somebody who means
harm, held against every command that reads them.
"""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acn_cl.errors import UserError
from acn_cl.reports.report import read_content
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from acn_cl.runs.load import load_runs
from acn_cl.runs.reading import DEEPEST, LARGEST_JSON, MOST_ROWS
from acn_cl.runs.schema import ACCURACY, TABLES

ROOT = Path(__file__).resolve().parents[1]
synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))
SCRIPT = "<script>alert(1)</script>"
MEGABYTE = 2**20

# The sources.

SOURCES = sorted(
    p for folder in ("acn_cl", "strategies", "benchmarks", "reports") for p in (ROOT / folder).rglob("*.py")
)
RUNS_DATA = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "os.system", "os.popen", "pd.read_pickle",
    "pd.eval", "pandas.read_pickle", "torch.hub.load", "torch.jit.load", "np.frompyfunc",
}  # fmt: skip
PICKLES = Path("benchmarks/datasets/pickles.py")
"""The one module that unpickles: bytes whose MD5 is a published one. tests/test_datasets.py tries to deceive it."""
IMPORTS_BY_NAME = {"acn_cl/tables.py", "acn_cl/__init__.py", "acn_cl/doctor.py"}
"""Tables' lines and a spec's dotted names; the package's own names; whether a package is there."""


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def called(node):
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def keywords(node):
    return {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def dangers(tree):
    """What in a source could run data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {m}" for m in modules if m.split(".")[0] in RUNS_DATA)
        name = called(node)
        if name in BUILT_IN or name in CALLS:
            yield f"calls {name}"
        if name == "torch.load" and keywords(node).get("weights_only") != "True":
            yield "calls torch.load without weights_only=True"
        if name.endswith("np.load") and keywords(node).get("allow_pickle", "False") != "False":
            yield "lets np.load unpickle"
        if isinstance(node, ast.Call) and keywords(node).get("shell", "False") != "False":
            yield "gives a line to a shell"
        if name == "Environment" and keywords(node).get("autoescape") != "True":
            yield "makes HTML without escaping"
        if isinstance(node, ast.ClassDef):
            loaders = [ast.unparse(b) for b in node.bases if ast.unparse(b).startswith("yaml.")]
            yield from (f"reads YAML by {loader}" for loader in loaders if loader != "yaml.SafeLoader")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_data(path):
    found = list(dangers(tree_of(path)))
    assert found == (["imports pickle"] if path.relative_to(ROOT) == PICKLES else [])


def test_the_scan_sees_what_it_looks_for():
    bad = (
        "import pickle\nfrom joblib import load\neval('1')\ntorch.load(f)\ntorch.load(f, weights_only=False)\n"
        "yaml.load(f)\nnp.load(f, allow_pickle=True)\nsubprocess.run('ls', shell=True)\nEnvironment(loader=x)\n"
        "class L(yaml.UnsafeLoader): pass\n"
    )
    assert len(list(dangers(ast.parse(bad)))) == 10
    good = "torch.load(f, weights_only=True)\nnp.load(f)\nmodel.eval()\nEnvironment(autoescape=True)\nre.compile('a')\n"
    assert not list(dangers(ast.parse(good)))


def test_the_pickles_that_are_opened_are_bytes_whose_digest_was_compared():
    calls = [node for node in ast.walk(tree_of(ROOT / PICKLES)) if called(node).startswith("pickle.")]
    assert [ast.unparse(call) for call in calls] == ["pickle.loads(self._published_bytes(path), encoding='latin1')"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_imported_in_one_place_and_no_reader_of_runs_goes_there(path):
    name = str(path.relative_to(ROOT))
    tree = tree_of(path)
    if name not in IMPORTS_BY_NAME:
        assert not [node for node in ast.walk(tree) if called(node).endswith("import_module")]
    if name.startswith(("reports/", "acn_cl/runs/")):
        assert "resolve" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


# Folders of runs that mean harm.


class Evil:
    """Makes a folder called ``owned`` when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.fixture
def runs(tmp_path):
    """Two honest runs, ``runs/honest/seed-{0,1}``, and one for each test to spoil, ``runs/bad/seed-0``."""
    for seed in (0, 1):
        synthetic.write_run(tmp_path / "runs", "honest", seed)
    return synthetic.write_run(tmp_path / "runs", "bad", 0).parents[1]


def read_by_everything(cli, drawn=False):
    """Every command that takes a folder of runs; a report without its drawings, which take seconds, unless wanted."""
    commands = [
        ["status", "runs"],
        ["compare", "runs", "runs"],
        *([["report", "runs", "--out", "report"]] if drawn else []),
    ]
    for words in commands:
        code, out, err = cli(*words)
        assert code in (0, 2, 3), f"{words}: {err}"
        assert "Traceback" not in out + err
    with suppress(UserError):
        read_content([Path("runs")], Path("report"), 0.0).texts_undrawn()


def respell(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pickles_under_other_names_are_not_opened(cli, runs, tmp_path):
    bad = runs / "bad/seed-0"
    assert pickle.loads(pickle.dumps(Evil())) is None and Path("owned").is_dir(), "the trap works"
    Path("owned").rmdir()
    for name in ("spec.json", "status.json", *(f"{table}.parquet" for table in TABLES)):
        honest = (bad / name).read_bytes() if (bad / name).exists() else None
        (bad / name).write_bytes(pickle.dumps(Evil()))
        read_by_everything(cli)
        (bad / name).unlink() if honest is None else (bad / name).write_bytes(honest)
    assert not Path("owned").exists()


def test_scripts_in_names_are_text(cli, runs):
    bad = runs / "bad/seed-0"
    spec = json.loads((bad / "spec.json").read_text())
    spec |= {"id": SCRIPT, "axes": {SCRIPT: SCRIPT, "strategy.name": SCRIPT}, "commit": SCRIPT, "device": SCRIPT}
    spec["experiment"] |= {"name": SCRIPT, "strategy": {"name": SCRIPT, SCRIPT: SCRIPT}}
    (bad / "spec.json").write_text(json.dumps(spec))
    rows = pq.read_table(bad / "layers.parquet").to_pylist()
    pq.write_table(
        pa.Table.from_pylist([row | {"quantity": SCRIPT} for row in rows], schema=TABLES["layers"]),
        bad / "layers.parquet",
    )
    synthetic.write_run(runs, "failed", 0, state="failed", error=SCRIPT)
    Path("theirs.csv").write_text(f"experiment,trained,evaluated,accuracy\n{SCRIPT} too,0,0,0.5\n")
    assert cli("report", "runs", "theirs.csv", "--out", "report")[0] == 0
    html = Path("report/report.html").read_text()
    assert SCRIPT not in html
    assert "&lt;script&gt;alert(1)" in html
    for drawing in Path("report").rglob("*.svg"):
        assert SCRIPT not in drawing.read_text()


def test_paths_stay_in_their_folder(cli, runs, tmp_path):
    """In ids, states, a report's list of its own files, a page's list of runs; nothing beside the report changes."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    bad = runs / "bad/seed-0"
    respell(bad / "spec.json", id="../../victim.txt", axes={"../../x": "../../victim.txt"})
    respell(bad / "status.json", experiment="../../victim.txt", host="../..", progress={"../..": 1})
    report = tmp_path / "report"
    report.mkdir()
    (report / "files.txt").write_text("../victim.txt\n/etc/passwd\nfigures/../../victim.txt\n")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    read_by_everything(cli, drawn=True)
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert victim.read_text() == "mine" and before <= after
    assert all(path.is_relative_to(report) for path in after - before)


def test_a_name_in_a_run_is_imported_by_no_reader(cli, runs, tmp_path):
    Path("evil_module.py").write_text("import os\nos.mkdir('owned')\n")
    bad = runs / "bad/seed-0"
    spec = json.loads((bad / "spec.json").read_text())
    for section in ("strategy", "backbone", "stream"):
        spec["experiment"][section] |= {"name": "evil_module:Thing", "block": "evil_module:Thing"}
    (bad / "spec.json").write_text(json.dumps(spec | {"axes": {"strategy.name": "evil_module:Thing"}}))
    read_by_everything(cli)
    Path("mine.yaml").write_text("name: bad\nstream: {name: split-digits}\nbackbone: {name: res_mixer, patch: 4}\n")
    code, _, error = cli("run", "mine.yaml", "--out", "runs")
    assert code == 2 and "holds a run with backbone" in error, "and by run only from its own spec"
    assert not Path("owned").exists()


def deep(levels):
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [DEEPEST + 1, 900, 100_000])
@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_deep_json_is_one_line(cli, runs, name, levels):
    (runs / "bad/seed-0" / name).write_text(deep(levels))
    read_by_everything(cli)
    assert "nested too deep" in load_runs(runs).unreadable[0].reason


@pytest.mark.parametrize("name", ["spec.json", "status.json", *(f"{table}.parquet" for table in TABLES)])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(cli, runs, name):
    path = runs / "bad/seed-0" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    read_by_everything(cli)
    assert "not an ordinary file" in load_runs(runs).unreadable[0].reason


# Files that are larger than they look.


def sparse_at_the_end(path):
    with path.open("r+b") as file:
        file.truncate(10_000_000_000)


def sparse_in_the_middle(path):
    """Whole for parquet, which looks at its end first: 10 GB of nothing before the footer."""
    data = path.read_bytes()
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    with path.open("r+b") as file:
        file.seek(10_000_000_000)
        file.write(data[-footer:])


def more_rows_than_fit(path):
    """A column of one value is a few bytes, whatever its length."""
    count = MOST_ROWS + 1
    columns = {field.name: pa.repeat(pa.scalar("x" if pa.types.is_string(field.type) else 0, field.type), count)
               for field in ACCURACY}  # fmt: skip
    pq.write_table(pa.table(columns), path, row_group_size=count)


def a_text_that_unfolds(path):
    """A megabyte once in the file, a hundred gigabytes in memory."""
    count = 100_000
    texts = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), ["x" * MEGABYTE])
    columns = {field.name: pa.array(np.zeros(count), field.type) for field in ACCURACY if field.type != pa.string()}
    pq.write_table(pa.table(columns | {"part": texts, "condition": texts}), path)
    assert path.stat().st_size < 10 * MEGABYTE


BOMBS = {
    "sparse at the end": (sparse_at_the_end, "10,000,000,000 bytes are too many"),
    "sparse in the middle": (sparse_in_the_middle, "bytes are too many"),
    "rows": (more_rows_than_fit, "5,000,001 rows are too many"),
    "text": (a_text_that_unfolds, "texts of up to 1,048,576 characters"),
}
MEASURED = """\
import resource, sys, time
from acn_cl.runs.load import load_runs
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
for entry in load_runs(sys.argv[1]).unreadable:
    print(entry.reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - began)
"""


def test_large_files_cost_a_line_and_neither_memory_nor_time(runs, tmp_path):
    """In a process of its own, whose memory can be read."""
    for name, (make, _) in BOMBS.items():
        make(synthetic.write_run(runs, name.replace(" ", "-"), 0) / "accuracy.parquet")
    for name in ("spec.json", "status.json"):
        sparse_at_the_end(synthetic.write_run(runs, f"large-{name}", 0) / name)
    (synthetic.write_run(runs, "wide", 0) / "spec.json").write_text("[" + "[]," * (LARGEST_JSON // 4) + "1]")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, runs], capture_output=True, text=True, timeout=300, check=True
    )
    *reasons, used = done.stdout.splitlines()
    for _, says in BOMBS.values():
        assert any(says in reason for reason in reasons), (says, reasons)
    assert len(reasons) == len(BOMBS) + 3
    kilobytes, seconds = map(float, used.split())
    assert kilobytes < 800 * 1024, f"{kilobytes / 1024:.0f} MB for files of megabytes"
    assert seconds < 60


def test_a_huge_csv_of_numbers_is_refused(cli, tmp_path):
    path = tmp_path / "theirs.csv"
    path.touch()
    sparse_at_the_end(path)
    code, _, error = cli("report", str(path))
    assert code == 2 and "too many" in error and len(error.splitlines()) == 1
    path.unlink()
    os.mkfifo(path)
    code, _, error = cli("report", str(path))
    assert code == 2 and "not an ordinary file" in error


# Folders of runs that `run` is to go on in.


@pytest.fixture
def cut(tiny, tmp_path, stopped):
    """An experiment and a run of it that was stopped, with two checkpoints."""
    from acn_cl.spec import Experiment

    experiment = Experiment(**tiny(stream={"name": "split-digits", "stop_after": 3}))
    stopped(experiment, tmp_path / "runs", 2)
    return experiment, tmp_path / "runs/experiment/seed-0"


def resign(checkpoint, **manifest):
    """Somebody who forges a file forges its checksum, too."""
    from hashlib import sha256

    files = [path for path in checkpoint.iterdir() if path.name != "manifest.json"]
    respell(
        checkpoint / "manifest.json",
        sha256={path.name: sha256(path.read_bytes()).hexdigest() for path in files},
        bytes={path.name: path.stat().st_size for path in files},
        **manifest,
    )


def newest(folder):
    return max((folder / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_going_on_from_a_pickle_that_is_called_safetensors_runs_nothing(cut, tmp_path, monkeypatch):
    from acn_cl.runner import run

    monkeypatch.chdir(tmp_path)
    experiment, folder = cut
    for checkpoint in (folder / "checkpoints").iterdir():
        for name in ("state.safetensors", "accuracy.parquet"):
            (checkpoint / name).write_bytes(pickle.dumps(Evil()))
        resign(checkpoint)
    assert [outcome.state for outcome in run(experiment, tmp_path / "runs")] == ["done"]
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"learner": {"heads": 10**9}},
        {"learner": {"clock": {"__class__": 1, "update": 0}}},
        {"strategy.__class__": "os:system"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_going_on_from_forged_values_ends_the_run_or_ignores_them(cut, tmp_path, change):
    from acn_cl.runner import run

    experiment, folder = cut
    checkpoint = newest(folder)
    state = json.loads((checkpoint / "state.json").read_text())
    for key, value in change.items():
        state["values"][key] = state["values"][key] | value if isinstance(value, dict) else value
    (checkpoint / "state.json").write_text(json.dumps(state))
    resign(checkpoint)
    began = time.monotonic()
    (outcome,) = run(experiment, tmp_path / "runs")
    assert outcome.state in ("failed", "done") and time.monotonic() - began < 120


def test_checkpoints_behind_a_link_are_neither_read_nor_removed(cut, tmp_path):
    from acn_cl.runner import run

    experiment, folder = cut
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder / "checkpoints", elsewhere)
    (folder / "checkpoints").symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    (outcome,) = run(experiment, tmp_path / "runs")
    assert outcome.state == "failed" and "a link" in outcome.error
    with pytest.raises(UserError, match="a link"):
        remove_checkpoints(folder)
    assert sorted(elsewhere.rglob("*")) == before


def test_names_in_a_checkpoint_lead_nowhere(tmp_path):
    """Which files are read and removed is decided here, not by what a manifest lists."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for epoch in range(4):
        save_checkpoint(tmp_path, Checkpoint(0, epoch, 0))
        manifest = json.loads((tmp_path / f"checkpoints/0-{epoch}/manifest.json").read_text())
        manifest["sha256"] |= {"../../victim": "0" * 64, "/etc/passwd": "0" * 64}
        (tmp_path / f"checkpoints/0-{epoch}/manifest.json").write_text(json.dumps(manifest))
    outside = tmp_path / "outside-7"
    shutil.copytree(tmp_path / "checkpoints/0-3", outside)
    (tmp_path / "checkpoints/9-9").symlink_to(outside)
    checkpoint, complaints = load_checkpoint(tmp_path)
    assert (checkpoint.epoch, complaints) == (3, [])
    remove_checkpoints(tmp_path)
    assert victim.read_text() == "mine" and sorted(p.name for p in outside.iterdir())


def test_the_limits_leave_room_for_what_runs_really_write():
    """A hundred experiences at fifty depths, tested after each, is an ordinary large run."""
    experiences, depths = 100, 50
    assert experiences * (experiences + 1) / 2 * (depths + 1) * 2 < MOST_ROWS
