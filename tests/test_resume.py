"""Nothing lost: a run that was cut off anywhere goes on, and ends in the same numbers as one that was not."""

import pkgutil
import random
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from acn_cl.backbones.blocks.base import Block
from acn_cl.runner import Quiet, run
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from acn_cl.runs.folder import read_status
from acn_cl.runs.weights import load_weights
from acn_cl.spec import Experiment
from acn_cl.training.interrupt import Interrupted, StopRequest

TABLES = ("accuracy", "layers", "confusion")


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


class Tied(nn.Module):
    """A network of a user's, two layers of which share their weights."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.start, self.left, self.right = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, width)
        self.right.weight = self.left.weight

    def forward(self, images):
        return self.right(self.left(self.start(images.flatten(1)).relu()).relu())


class TiedBlock(Block):
    """A block of a user's, whose two layers share their weights."""

    def __init__(self, *, width: int, tokens: int, inner_skips: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.right.weight = self.left.weight

    def forward(self, x):
        return self.right(self.left(x).relu())


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


@pytest.mark.parametrize(  # a whole network of one's own is not stacked
    ("name", "engine"),
    [("network", "avalanche"), ("network", "auto"), ("block", "avalanche"), ("block", "auto"), ("block", "stacked")],
)
def test_shared_weights_are_trained_and_saved_and_gone_on_with(tiny, tmp_path, name, engine, stopped):
    backbone = {"name": "test_resume_names:Tied"} if name == "network" else {
        "wiring": "acn", "block": "test_resume_names:TiedBlock", "depth": 2, "width": 8, "patch": 4
    }  # fmt: skip
    experiment = Experiment(**tiny() | {"backbone": backbone, "engine": engine, "strategy": {"name": "si"}})
    assert [o.state for o in run(experiment, tmp_path / "whole")] == ["done"]
    stopped(experiment, tmp_path / "cut", 3)
    assert [o.state for o in run(experiment, tmp_path / "cut")] == ["done"]
    same_results(tmp_path / "whole", tmp_path / "cut")
    weights = load_weights(tmp_path / "cut/experiment/seed-0")
    left = next(key for key in weights if key.endswith("left.weight"))
    assert torch.equal(weights[left], weights[left.replace("left", "right")])


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
    said = []
    display = Quiet()
    display.note = said.append
    run(experiment, tmp_path / "cut", display)
    assert [line.split(": ")[-1] for line in said[:2]] == [
        "state.safetensors is missing or is not what was written; going back to what was before it"
    ] * 2
    assert said[2] == "experiment seed 0: none of its checkpoints is whole, so it starts again"
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


@pytest.mark.parametrize(
    ("engine", "tests"),
    [
        ("avalanche", "acn_cl.training.session.evaluate"),
        ("stacked", "acn_cl.training.stack_training.StackTraining._score"),
    ],
)
def test_a_stop_that_is_asked_for_during_the_tests_comes_after_them(tiny, tmp_path, monkeypatch, engine, tests):
    stream = {"name": "split-digits", "stop_after": 3, "class_order": "fixed"}  # of equal sizes, to be stacked
    experiment = Experiment(**tiny(engine=engine, seeds=[0, 1], stream=stream))
    run(experiment, tmp_path / "whole")
    stop, left = StopRequest(), [2]  # the first of the tests after the second experience
    original = pkgutil.resolve_name(tests)

    def asks(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            stop.signal = signal.SIGTERM
        return original(*args, **kwargs)

    monkeypatch.setattr(tests, asks)
    with pytest.raises(Interrupted):
        run(experiment, tmp_path / "cut", stop=stop)
    monkeypatch.undo()
    newest = tmp_path / "cut/experiment/seed-0/checkpoints/2-0"
    assert (newest / "manifest.json").exists(), "with its tests, which are not done again"
    run(experiment, tmp_path / "cut")
    for seed in (0, 1):
        same_results(tmp_path / "whole", tmp_path / "cut", seed=seed)
