"""Any bytes at all in a spec, or in a file of a run, give a clean error or a result: no traceback, no hang, no code.

`FUZZ_EXAMPLES=10000 python -m pytest tests/test_fuzz.py` is the long form.
"""

import contextlib
import json
import os
import warnings

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acn_cl.errors import UserError
from acn_cl.recipe import load_recipe
from acn_cl.runner import run
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from acn_cl.runs.folder import read_status
from acn_cl.runs.load import load_runs
from acn_cl.spec import Experiment

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SPEC = """\
name: mine
stream: {name: split-digits, experiences: 5, class_order: fixed}
backbone: {name: ac_mixer, depth: 2, width: 16, patch: 4}
strategy: {name: si, lambda: 1.0}
optimizer: {lr: 1.0e-3, state: carry}
epochs: 1
seeds: 0-1
evaluate_every: {steps: 3}
pin: {class_order: 3}
matrix:
  backbone.depth: [1, 2]
  strategy: [naive, {name: ewc}]
"""
KEYS = [
    "name",
    "stream",
    "backbone",
    "strategy",
    "epochs",
    "seeds",
    "matrix",
    "lambda",
    "depth",
    "device",
    "pin",
    "loss",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["si", "0-3", "acn", "a:b"]),
)
TROUBLE = [b"{", b"- ", b": ", b"\n", b"&a ", b"*a", b"!!x ", b"9" * 400]
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw, original: bytes):
    """``original`` with pieces cut out, doubled and overwritten."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 12))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"{", b"- ", b": ", b"\n", b"&a ", b"*a", b"!!x ", b"9" * 400])
        )
        data[at : at + length] = piece
    return bytes(data)


def check_recipe(path, data):
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        load_recipe(str(path))


@fuzz
@given(data=damaged(SPEC.encode()))
def test_a_damaged_spec(tmp_path, data):
    check_recipe(tmp_path / "mine.yaml", data)


@fuzz
@given(tree=TREES, changed=st.sampled_from([*sorted(Experiment.model_fields), "matrix"]))
def test_any_value_for_any_key(tmp_path, tree, changed):
    spec = yaml.safe_load(SPEC) | {changed: tree}
    check_recipe(tmp_path / "mine.yaml", yaml.safe_dump(spec, allow_unicode=True).encode())


@fuzz
@given(
    key=st.text(max_size=12) | st.sampled_from(["strategy.lambda", "epochs", "backbone.depth", "stream"]), tree=TREES
)
def test_any_override(key, tree):
    with contextlib.suppress(UserError):
        load_recipe("quick", [f"{key}={yaml.safe_dump(tree, default_flow_style=True)}"])


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """The files of one finished run, by name."""
    out = tmp_path_factory.mktemp("runs")
    backbone = {"name": "ac_mixer", "depth": 1, "width": 8, "patch": 4, "tokens_hidden": 4, "channels_hidden": 8}
    run(Experiment(stream={"name": "split-digits"}, backbone=backbone, epochs=1, batch_size=256, precision="fp32"), out)
    folder = out / "experiment/seed-0"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["spec.json", "status.json", "accuracy.parquet", "layers.parquet", "timing.parquet"])
def test_a_damaged_file_of_a_run(tmp_path, a_run, name):
    folder = tmp_path / "experiment" / "seed-0"
    folder.mkdir(parents=True)
    for other, data in a_run.items():
        (folder / other).write_bytes(data)

    @fuzz
    @given(data=damaged(a_run[name]))
    def each(data):
        (folder / name).write_bytes(data)
        with contextlib.suppress(UserError):
            loaded = load_runs(tmp_path)
            for found in loaded.runs:
                if found.status.state == "done":
                    loaded.matrix(found.experiment, found.seed)
        with contextlib.suppress(UserError):
            read_status(folder)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each()


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors", "accuracy.parquet"])
def test_a_damaged_file_of_a_checkpoint(tmp_path, name):
    import torch

    rows = {"accuracy": [], "layers": [], "timing": []}
    save_checkpoint(tmp_path, Checkpoint(1, 2, 0, {"a": torch.ones(3)}, {"x": [1, "y"]}, rows))
    folder = tmp_path / "checkpoints/1-2"
    original = (folder / name).read_bytes()

    @fuzz
    @given(data=damaged(original))
    def each(data):
        (folder / name).write_bytes(data)
        try:
            found, complaints = load_checkpoint(tmp_path)
        except UserError:
            return
        assert (found is None) == bool(complaints)
        if found is not None:
            assert found.tensors["a"].tolist() == [1, 1, 1], "what is not what was written is never used"

    each()


def test_a_malicious_run_folder_does_no_harm(tmp_path, a_run):
    """A name that leads out of the folder, a script in a name, and 10 GB that are not there."""
    runs = tmp_path / "runs"
    folder = runs / "<img src=x onerror=alert(1)>" / "seed-0"
    folder.mkdir(parents=True)
    for name, data in a_run.items():
        (folder / name).write_bytes(data)
    spec = json.loads(a_run["spec.json"])
    spec["id"] = "../../outside"
    spec["experiment"]["strategy"]["name"] = "os:system"
    (folder / "spec.json").write_text(json.dumps(spec))
    from acn_cl.reports import make_report

    before = sorted(p for p in tmp_path.rglob("*"))
    html = make_report([runs], tmp_path / "report").read_text()
    assert "<img src=x" not in html and "&lt;img src=x" in html
    made = {*tmp_path.rglob("*")} - {*before}
    assert all(p.is_relative_to(tmp_path / "report") for p in made)
    with (folder / "accuracy.parquet").open("r+b") as file:
        file.truncate(10_000_000_000)
    with contextlib.suppress(UserError):
        load_runs(runs)


@given(st.text())
def test_an_error_is_one_line_whatever_the_names_in_it(text):
    line = str(UserError(f"no file {text}"))
    assert line.isprintable() and line.startswith("no file")
