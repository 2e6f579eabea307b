"""Every file says which version of the format it has: older ones are read, a newer one is refused by name."""

import json
import re
from hashlib import sha256

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from acn_cl.errors import UserError
from acn_cl.runner import run
from acn_cl.runs.checkpoint import load_checkpoint
from acn_cl.runs.folder import read_status
from acn_cl.runs.load import load_runs, read_run
from acn_cl.runs.schema import SCHEMA_VERSION, TABLES, VERSION_KEY
from acn_cl.runs.weights import load_weights
from acn_cl.spec import Experiment

OF_A_REPORT = ["spec.json", "status.json", *(f"{name}.parquet" for name in TABLES)]


def version(path):
    if path.suffix == ".json":
        return json.loads(path.read_text()).get("schema_version")
    if path.suffix == ".parquet":
        written = (pq.read_schema(path).metadata or {}).get(VERSION_KEY)
        return written and int(written)
    with safe_open(path, "pt") as file:
        return int(file.metadata()["schema_version"]) if file.metadata() else None


def set_version(path, value):
    """Rewrite a file as another version, or without any, as they once were."""
    if path.suffix == ".json":
        content = json.loads(path.read_text()) | {"schema_version": value}
        path.write_text(json.dumps({k: v for k, v in content.items() if k != "schema_version" or v is not None}))
    elif path.suffix == ".parquet":
        metadata = None if value is None else {VERSION_KEY: str(value)}
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    else:
        save_file(load_file(path), path, None if value is None else {"schema_version": str(value)})


def renew_sums(checkpoint):
    """A checkpoint whose files were changed by somebody who knows how."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    files = [path for path in checkpoint.iterdir() if path.name != "manifest.json"]
    manifest["sha256"] = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    manifest["bytes"] = {path.name: path.stat().st_size for path in files}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


@pytest.fixture
def experiment(tiny):
    return Experiment(**tiny(stream={"name": "split-digits", "stop_after": 2}, epochs=2))


@pytest.fixture
def done(experiment, tmp_path):
    run(experiment, tmp_path / "runs")
    return tmp_path / "runs/experiment/seed-0"


def test_every_file_of_a_run_says_its_version(done):
    files = [path for path in done.rglob("*") if path.is_file() and path.name != "run.lock"]
    assert {path.name for path in files} == {*OF_A_REPORT, "model.safetensors"}
    assert {path.name: version(path) for path in files} == {path.name: SCHEMA_VERSION for path in files}


@pytest.mark.parametrize("name", OF_A_REPORT)
def test_a_report_refuses_a_later_file_and_reads_the_other_runs(done, tmp_path, name, experiment):
    run(experiment.model_copy(update={"name": "other"}), tmp_path / "runs")
    set_version(done / name, 99)
    runs = load_runs(tmp_path / "runs")
    (refused,) = runs.unreadable
    says = f"{done / name}: schema version 99, of a later acn-cl; this one reads up to {SCHEMA_VERSION}: update acn-cl"
    assert refused.reason == says
    assert runs.experiments == ["other"]


@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_run_refuses_a_later_folder_and_changes_nothing(done, experiment, tmp_path, name):
    set_version(done / name, 99)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"{name}: schema version 99, of a later acn-cl"):
        run(experiment, tmp_path / "runs")
    assert contents(tmp_path) == before


def test_later_weights_are_refused(done):
    set_version(next(done.rglob("model.safetensors")), 99)
    with pytest.raises(UserError, match=r"model\.safetensors: schema version 99"):
        load_weights(done)


@pytest.mark.parametrize("name", ["manifest.json", "accuracy.parquet", "state.json"])
def test_a_later_checkpoint_is_refused_and_not_taken_for_a_damaged_one(experiment, tmp_path, stopped, name):
    """Going back to the one before would throw away what the later version has done."""
    stopped(experiment, tmp_path, 3)
    newest = max((tmp_path / "experiment/seed-0/checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    set_version(newest / name, 99)
    if name != "manifest.json":
        renew_sums(newest)
    with pytest.raises(UserError, match=rf"{re.escape(name)}: schema version 99, of a later acn-cl"):
        load_checkpoint(tmp_path / "experiment/seed-0")


@pytest.mark.parametrize("value", [0, -1, "2", 1.5, True, [1]])
def test_a_version_that_is_none_is_damage(done, value):
    set_version(done / "spec.json", value)
    with pytest.raises(UserError, match=r"spec\.json: damaged \(schema version"):
        read_run(done)


def test_files_from_before_versions_are_read(done, experiment, tmp_path):
    whole, weights = read_run(done), load_weights(done)
    for path in contents(done):
        set_version(path, None)
        assert version(path) is None
    old = read_run(done)
    for table in TABLES:
        assert getattr(whole, table).equals(getattr(old, table))
    assert read_status(done).state == "done"
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_weights(done).items())
    assert [outcome.state for outcome in run(experiment, tmp_path / "runs")] == ["skipped"]


def test_a_checkpoint_from_before_versions_is_gone_on_from(experiment, tmp_path, stopped):
    run(experiment, tmp_path / "whole")
    stopped(experiment, tmp_path / "cut", 3)
    folder = tmp_path / "cut/experiment/seed-0"
    for checkpoint in (folder / "checkpoints").iterdir():
        for path in checkpoint.iterdir():
            set_version(path, None)
        renew_sums(checkpoint)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        del manifest["bytes"]
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert load_checkpoint(folder)[1] == []
    run(experiment, tmp_path / "cut")
    assert read_run(folder).accuracy.equals(read_run(tmp_path / "whole/experiment/seed-0").accuracy)
