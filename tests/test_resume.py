"""Nothing lost: a run that was cut off anywhere goes on, and ends in the same numbers as one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from avalanche.core import SupervisedPlugin

from acn_cl.errors import UserError
from acn_cl.runner import Quiet, run
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from acn_cl.runs.folder import read_status
from acn_cl.runs.weights import load_weights
from acn_cl.spec import Experiment
from acn_cl.training.interrupt import Interrupted, StopRequest

TABLES = ("accuracy", "layers")


class StopsAt(SupervisedPlugin):
    """Asks to stop after a number of steps, counted over the whole stream; draws globally, as foreign code does."""

    stop: StopRequest
    at: int | None = None
    steps = 0

    def before_forward(self, strategy, **_):
        strategy.mb_x.add_(torch.randn(()) * 0.01 + random.gauss(0, 0.01))

    def after_training_iteration(self, strategy, **_):
        type(self).steps += 1
        if self.steps == self.at:
            self.stop.signal = signal.SIGTERM

    def state(self):
        return {}

    def load_state(self, state):
        assert not state


class NoState(SupervisedPlugin):
    """A strategy that does not say what its state is."""


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "test_resume_names", sys.modules[__name__])


def same_results(a, b, experiment="experiment", seed=0):
    for table in TABLES:
        one, other = (pd.read_parquet(Path(f) / experiment / f"seed-{seed}" / f"{table}.parquet") for f in (a, b))
        pd.testing.assert_frame_equal(one, other)
    one, other = (load_weights(Path(f) / experiment / f"seed-{seed}") for f in (a, b))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("strategy", [{"name": "naive"}, {"name": "si", "lambda": 50}, {"name": "ewc", "lambda": 1e5}])
@pytest.mark.parametrize("state", ["reset", "carry"])
def test_a_run_stopped_between_steps_ends_in_the_same_numbers(tiny, tmp_path, strategy, state, stopped):
    spec = tiny(strategy=strategy, optimizer={"state": state, "clip_norm": 1.0}, epochs=3)
    experiment = Experiment(**spec, schedule={"name": "cosine", "warmup_epochs": 1})
    run(experiment, tmp_path / "whole")
    for epochs in (1, 2, 5):
        stopped(experiment, tmp_path / "cut", epochs)
        assert read_status(tmp_path / "cut/experiment/seed-0").state == "failed"
    assert [o.state for o in run(experiment, tmp_path / "cut")] == ["done"]
    same_results(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("scenario", ["task-incremental", "class-incremental"])
def test_every_single_step_is_a_place_to_stop(tiny, tmp_path, precision, scenario):
    """A foreign plug-in that draws from torch's and Python's global generators, CutMix, and every third step."""
    backbone = {"name": "ac_mixer", "depth": 1, "width": 8, "patch": 4, "tokens_hidden": 4, "channels_hidden": 8}
    experiment = Experiment(
        **tiny(
            backbone=backbone,
            strategy={"name": "test_resume_names:StopsAt"},
            loss={"cutmix": 0.5},
            epochs=2,
            batch_size=128,
            precision=precision,
            stream={"name": "split-digits", "experiences": 2, "scenario": scenario, "stop_after": 2},
        )
    )
    StopsAt.at, StopsAt.steps = None, 0
    run(experiment, tmp_path / "whole")
    total = StopsAt.steps
    for at in range(1, total + 1, 3):
        StopsAt.stop, StopsAt.at, StopsAt.steps = StopRequest(), at, 0
        out = tmp_path / f"cut-{at}"
        with pytest.raises(Interrupted):
            run(experiment, out, stop=StopsAt.stop)
        StopsAt.at = None
        run(experiment, out)
        assert StopsAt.steps == total, "no step is lost or done twice"
        same_results(tmp_path / "whole", out)


def test_checkpoints_are_made_when_it_is_time_and_two_are_kept(tiny, tmp_path):
    found = []

    class Looks(Quiet):
        def epoch_done(self, experience, epoch, loss):
            folder = tmp_path / "experiment/seed-0/checkpoints"
            found.append(sorted(p.name for p in folder.iterdir()) if folder.exists() else [])

    run(Experiment(**tiny(epochs=3, checkpoint={"every_seconds": 0})), tmp_path, Looks())
    # Seen at the end of an epoch, before that epoch's own save; the last epoch of an experience is saved with its end.
    assert found[:5] == [[], ["0-1"], ["0-1", "0-2"], ["0-2", "1-0"], ["1-0", "1-1"]]
    left = [p.relative_to(tmp_path / "experiment/seed-0/checkpoints") for p in tmp_path.rglob("checkpoints/*/*")]
    assert [str(p) for p in left] == ["5-0/model.safetensors"], "only final weights stay when done"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny, tmp_path, stopped):
    experiment = Experiment(**tiny(epochs=2, checkpoint={"every_seconds": 0}))
    run(experiment, tmp_path / "whole")
    stopped(experiment, tmp_path / "cut", 4)
    folder = tmp_path / "cut/experiment/seed-0"
    last = sorted((folder / "checkpoints").iterdir())[-1]
    (last / "state.safetensors").write_bytes(b"\x80\x04garbage")

    said = []
    display = Quiet()
    display.note = said.append
    run(experiment, tmp_path / "cut", display)
    assert "state.safetensors is missing or is not what was written; going back" in said[0]
    same_results(tmp_path / "whole", tmp_path / "cut")


def test_if_every_checkpoint_is_damaged_the_run_starts_again(tiny, tmp_path, stopped):
    experiment = Experiment(**tiny(epochs=2))
    run(experiment, tmp_path / "whole")
    stopped(experiment, tmp_path / "cut", 3)
    for path in (tmp_path / "cut/experiment/seed-0/checkpoints").glob("*/manifest.json"):
        path.write_text("{}")
    run(experiment, tmp_path / "cut")
    same_results(tmp_path / "whole", tmp_path / "cut")


def test_a_strategy_without_a_state_starts_again_and_says_so(tiny, tmp_path, stopped):
    experiment = Experiment(**tiny(strategy={"name": "test_resume_names:NoState"}, epochs=2))
    run(experiment, tmp_path / "whole")
    stopped(experiment, tmp_path / "cut", 3)
    assert not list((tmp_path / "cut").rglob("manifest.json"))
    said = []
    display = Quiet()
    display.note = said.append
    run(experiment, tmp_path / "cut", display)
    assert "starts again" in said[0]
    same_results(tmp_path / "whole", tmp_path / "cut")


def test_results_that_only_the_last_checkpoint_holds_are_written(tiny, tmp_path):
    """Cut off after the last save and before the tables are written."""
    experiment = Experiment(**tiny())
    run(experiment, tmp_path / "whole")

    class Cut(Quiet):
        def experience_done(self, experience, results):
            if experience == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "cut", Cut())
    (tmp_path / "cut/experiment/seed-0/accuracy.parquet").unlink()
    run(experiment, tmp_path / "cut")
    same_results(tmp_path / "whole", tmp_path / "cut")


def test_a_failed_save_leaves_the_last_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, Checkpoint(1, 0, 0, {"a": torch.ones(2)}, {"x": 1}))
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    monkeypatch.setattr("acn_cl.runs.checkpoint.write_rows", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        save_checkpoint(tmp_path, Checkpoint(2, 0, 0, {"a": torch.zeros(2)}))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before
    loaded, complaints = load_checkpoint(tmp_path)
    assert (loaded.experience, loaded.tensors["a"].tolist(), loaded.plain, complaints) == (1, [1.0, 1.0], {"x": 1}, [])


def test_a_later_versions_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(1, 0, 0))
    path = next(tmp_path.rglob("manifest.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(UserError, match="later version of acn-cl"):
        load_checkpoint(tmp_path)


def test_a_pickle_in_place_of_tensors_is_not_opened(tmp_path):
    """Checksums can be forged by whoever forges the file; safetensors then refuses what is not its own."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    save_checkpoint(tmp_path, Checkpoint(1, 0, 0))
    folder = next((tmp_path / "checkpoints").iterdir())
    (folder / "state.safetensors").write_bytes(pickle.dumps(Evil()))
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["state.safetensors"] = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    loaded, complaints = load_checkpoint(tmp_path)
    assert loaded is None and len(complaints) == 1
    assert not (tmp_path / "owned").exists()


def kill_and_resume(tmp_path, kills, seed):
    """SIGKILL at random moments, start again with the same command, until it is done; how often it was killed."""
    chance = random.Random(seed)
    command = [
        sys.executable, "-m", "acn_cl.cli", "run", "quick", "--seeds", "0", "--precision", "fp32",
        "--set", "strategy={name: si, lambda: 100}", "--set", "backbone.name=ac_mixer",
        "--set", "checkpoint.every_seconds=0", "--out",
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=600, **quiet)
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], **quiet)
        until = time.monotonic() + 60
        folder = tmp_path / "cut/quick/seed-0"
        while not (folder / "status.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 6))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    subprocess.run([*command, str(tmp_path / "cut")], check=True, timeout=600, **quiet)
    same_results(tmp_path / "whole", tmp_path / "cut", experiment="quick")
    return killed


def test_killed_at_random_moments_it_ends_in_the_same_numbers(tmp_path):
    assert kill_and_resume(tmp_path, kills=3, seed=1) >= 1


@pytest.mark.slow
def test_killed_thirty_times_it_ends_in_the_same_numbers(tmp_path):
    assert sum(kill_and_resume(tmp_path / str(part), kills=6, seed=part) for part in range(5)) >= 15
