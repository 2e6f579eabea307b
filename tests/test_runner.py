"""Runs, end to end on real digits: what is written, what is skipped, what is the same and what is not."""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from avalanche.core import SupervisedPlugin
from safetensors.torch import load_file

from acn_cl.errors import UserError
from acn_cl.runner import run
from acn_cl.runs.folder import RunFolder, read_status
from acn_cl.runs.schema import ACCURACY, CONFUSION, LAYERS, TIMING
from acn_cl.runs.weights import load_weights
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training.session import build_network, build_stream


def accuracy(folder, experiment="experiment", seed=0):
    return pd.read_parquet(Path(folder) / experiment / f"seed-{seed}" / "accuracy.parquet")


def weights(folder, experiment="experiment", seed=0):
    return load_weights(Path(folder) / experiment / f"seed-{seed}")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Breaks(SupervisedPlugin):
    """Fails in the second experience of the first seed that it meets."""

    def before_training_epoch(self, strategy, **_):
        if strategy.experience.current_experience == 1:
            raise OSError(28, "No space left on device")


class DrawsGlobally(SupervisedPlugin):
    """Draws from torch's global generator, as much foreign code does."""

    def before_forward(self, strategy, **_):
        strategy.mb_x.add_(torch.randn(()) * 0.1)


class TinyNet(torch.nn.Module):
    """A user's own network."""

    def __init__(self, width=6):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Tanh())

    def forward(self, images):
        return self.layers(images)


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    """Dotted names in this file: ``test_runner_names:Breaks``."""
    monkeypatch.setitem(sys.modules, "test_runner_names", sys.modules[__name__])


def test_a_run_folder_holds_what_the_architecture_says(tiny, tmp_path):
    outcome, *_ = run(Experiment(**tiny(evaluate_every={"steps": 2})), tmp_path)
    folder = tmp_path / "experiment" / "seed-0"
    assert outcome.state == "done"
    assert pq.read_schema(folder / "accuracy.parquet").equals(ACCURACY)
    assert pq.read_schema(folder / "layers.parquet").equals(LAYERS)
    assert pq.read_schema(folder / "timing.parquet").equals(TIMING)
    assert pq.read_schema(folder / "confusion.parquet").equals(CONFUSION)
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["schema_version"] == 1
    assert spec["experiment"]["strategy"]["name"] == "naive"
    assert sorted(spec["class_order"]) == list(range(10))
    assert read_status(folder).state == "done"
    table = accuracy(tmp_path)
    at_end = table[table.step == -1]
    assert set(zip(at_end.trained, at_end.evaluated, strict=True)) == {(t, j) for t in range(5) for j in range(t + 1)}
    assert set(table.depth) == {0, 1, 2}
    assert table.accuracy.between(0, 1).all()
    within = table[table.step != -1]
    assert set(within.step) == {2, 4}
    assert set(within.trained) == set(range(-1, 4)), "a step belongs to the experience after the last one learned"
    assert not list(folder.glob(".*.part")), "no half-written file stays"


def test_the_accuracies_are_those_of_the_final_weights(tiny, tmp_path):
    """Recomputed with nothing of ours but the network and the stored weights."""
    experiment = Experiment(**tiny(epochs=2))
    run(experiment, tmp_path)
    stream = build_stream(experiment, Seeds(0))
    network = build_network(experiment, Seeds(0), stream)
    network.heads.grow(4, torch.device("cpu"))
    network.load_state_dict(weights(tmp_path))
    table = accuracy(tmp_path)
    for index, experience in enumerate(stream.experiences):
        images = (torch.tensor(experience.test.load()) / 255 - stream.info.mean[0]) / stream.info.std[0]
        with torch.no_grad():
            right = network(images, index).argmax(1).numpy() == experience.test.labels
        row = table[(table.trained == 4) & (table.evaluated == index) & (table.depth == 2)]
        assert row.accuracy.item() == pytest.approx(right.mean(), abs=1e-9)


def test_the_same_seed_gives_the_same_run_and_another_one_another(tiny, tmp_path):
    for name in ("a", "b"):
        run(Experiment(**tiny(seeds=[0, 1])), tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    pd.testing.assert_frame_equal(accuracy(tmp_path / "a"), accuracy(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "a", seed=1))


@pytest.mark.parametrize("pinned", ["class_order", "initialisation", "data_order"])
def test_a_pin_holds_one_purpose_and_leaves_the_others(tiny, tmp_path, pinned):
    experiment = Experiment(**tiny(seeds=[0, 1], pin={pinned: 5}, optimizer={"lr": 1e-12, "weight_decay": 0}))
    run(experiment, tmp_path)
    first, second = (json.loads((tmp_path / f"experiment/seed-{s}/spec.json").read_text()) for s in (0, 1))
    assert (first["class_order"] == second["class_order"]) == (pinned == "class_order")
    key = "backbone.embedding.project.weight"
    key = key if key in weights(tmp_path) else next(k for k in weights(tmp_path) if k.endswith("weight"))
    close = torch.allclose(weights(tmp_path)[key], weights(tmp_path, seed=1)[key], atol=1e-6)
    assert close == (pinned == "initialisation")
    assert first["pins"] == {pinned: 5}


@pytest.mark.parametrize("scenario", ["task-incremental", "class-incremental"])
@pytest.mark.parametrize("name", ["si", "ewc"])
def test_a_strategy_of_strength_zero_is_naive_and_more_is_not(tiny, tmp_path, name, scenario):
    """The test that would have caught Avalanche's Synaptic Intelligence, which does nothing on a CPU."""
    stream = {"name": "split-digits", "scenario": scenario}
    for folder, strategy in {
        "naive": {"name": "naive"},
        "zero": {"name": name, "lambda": 0},
        "more": {"name": name, "lambda": 100},
    }.items():
        run(Experiment(**tiny(stream=stream, strategy=strategy)), tmp_path / folder)
    assert same(weights(tmp_path / "zero"), weights(tmp_path / "naive"))
    assert not same(weights(tmp_path / "more"), weights(tmp_path / "naive"))


def test_naive_moves_the_current_head_alone_and_si_every_head_seen(tiny, tmp_path):
    """AdamW decays a parameter whose gradient is zero, and leaves one that has none."""
    for strategy in ({"name": "naive"}, {"name": "si", "lambda": 1.0}):
        for experiences in (1, 2):
            stream = {"name": "split-digits", "stop_after": experiences}
            run(Experiment(**tiny(stream=stream, strategy=strategy)), tmp_path / strategy["name"] / str(experiences))
    first = "heads.blocks.0.weight"
    after_one, after_two = (weights(tmp_path / "naive" / n)[first] for n in "12")
    assert torch.equal(after_one, after_two)
    after_one, after_two = (weights(tmp_path / "si" / n)[first] for n in "12")
    assert not torch.equal(after_one, after_two)


def test_runs_learn_and_naive_forgets(tiny, tmp_path):
    backbone = {"name": "ac_mixer", "depth": 2, "width": 32, "patch": 2, "tokens_hidden": 16, "channels_hidden": 64}
    run(Experiment(**tiny(epochs=10, batch_size=16, backbone=backbone, optimizer={"lr": 3e-3})), tmp_path)
    table = accuracy(tmp_path)
    full = table[table.depth == 2].set_index(["trained", "evaluated"]).accuracy
    learned = sum(full[t, t] for t in range(5)) / 5
    assert learned > 0.9
    assert sum(full[4, j] for j in range(4)) / 4 < learned - 0.02


def test_optimiser_state_reset_and_carried_differ_after_the_first_experience(tiny, tmp_path):
    for state in ("reset", "carry"):
        run(Experiment(**tiny(optimizer={"state": state})), tmp_path / state)
    a, b = (
        accuracy(tmp_path / state).set_index(["trained", "evaluated", "depth"]).loss for state in ("reset", "carry")
    )
    assert a.loc[0].equals(b.loc[0])
    assert not a.loc[1].equals(b.loc[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"name": "cosine", "warmup_epochs": 1, "floor": 1e-5}, "epochs": 2},
        {"schedule": {"warmup_epochs": 1}},
        {"loss": {"label_smoothing": 0.1, "cutmix": 0.5}},
        {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "clip_norm": 1.0}},
        {"optimizer": {"name": "adam"}},
        {"precision": "bf16"},
        {"deterministic": True},
        {"stream": {"name": "split-digits", "labels": "global"}},
        {"stream": {"name": "split-digits", "scenario": "class-incremental", "labels": "global"}},
        {"stream": {"name": "permuted-digits", "experiences": 2}},
        {"stream": {"name": "split-digits", "validation": 0.2, "stop_after": 2}},
        {"checkpoint": {"keep": "none"}},
    ],
    ids=lambda c: "-".join(map(str, c)),
)
def test_every_option_runs_and_changes_something(tiny, tmp_path, changes):
    """Each against the plain run; ``deterministic`` and ``keep`` may change nothing that is measured."""
    outcome, *_ = run(Experiment(**tiny(**changes)), tmp_path / "changed")
    assert outcome.state == "done", outcome.error
    if set(changes) <= {"deterministic", "checkpoint"}:
        return
    run(Experiment(**tiny(epochs=changes.get("epochs", 1))), tmp_path / "plain")
    changed, plain = accuracy(tmp_path / "changed"), accuracy(tmp_path / "plain")
    assert not changed.equals(plain)


def test_the_learned_network_is_tested_under_noise(tiny, tmp_path):
    """The clean rows are what they are without; more noise, less accuracy."""
    run(Experiment(**tiny(epochs=5)), tmp_path / "plain")
    run(Experiment(**tiny(epochs=5, corruptions=["gaussian-0.05", "gaussian-1.0"])), tmp_path / "noisy")
    table = accuracy(tmp_path / "noisy")
    clean = table[table.condition == "clean"].reset_index(drop=True)
    pd.testing.assert_frame_equal(clean, accuracy(tmp_path / "plain"))
    noisy = table[(table.condition != "clean")]
    assert set(noisy.trained) == {4}
    by_level = table[(table.trained == 4) & (table.depth == 2)].groupby("condition").accuracy.mean()
    assert by_level["gaussian-1"] < by_level["clean"]
    assert by_level["gaussian-1"] < by_level["gaussian-0.05"]


def test_a_domain_incremental_stream_is_tested_before_it_is_trained(tiny, tmp_path):
    """Forward transfer needs what the untrained network scores; elsewhere it is undefined and not measured."""
    run(Experiment(**tiny(stream={"name": "permuted-digits", "experiences": 3})), tmp_path / "domain")
    table = accuracy(tmp_path / "domain")
    assert set(table[table.trained == -1].evaluated) == {0, 1, 2}
    assert set(table[table.trained == 0].evaluated) == {0, 1, 2}
    run(Experiment(**tiny()), tmp_path / "task")
    assert (accuracy(tmp_path / "task").trained >= 0).all()


def test_a_users_own_network_runs_through_the_same_job(tiny, tmp_path):
    outcome, *_ = run(Experiment(**tiny(backbone={"name": "test_runner_names:TinyNet", "width": 5})), tmp_path)
    assert outcome.state == "done", outcome.error
    assert set(accuracy(tmp_path).depth) == {0}
    state = load_file(next((tmp_path / "experiment/seed-0/checkpoints").glob("*/model.safetensors")))
    prefix = "backbone.module."
    TinyNet(5).load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def test_a_timm_model_runs_through_the_same_job(tiny, tmp_path):
    pytest.importorskip("timm")
    backbone = {"name": "timm:create_model", "model_name": "test_resnet", "in_chans": 1, "num_classes": 0}
    stream = {"name": "split-digits", "stop_after": 2}
    outcome, *_ = run(Experiment(**tiny(backbone=backbone, stream=stream)), tmp_path)
    assert outcome.state == "done", outcome.error
    assert any(key.startswith("backbone.module.") for key in weights(tmp_path))


def test_finished_runs_are_skipped_and_a_wider_seed_list_adds_to_them(tiny, tmp_path):
    assert [o.state for o in run(Experiment(**tiny()), tmp_path)] == ["done"]
    before = (tmp_path / "experiment/seed-0/accuracy.parquet").stat().st_mtime_ns
    assert [o.state for o in run(Experiment(**tiny(seeds="0-1")), tmp_path)] == ["skipped", "done"]
    assert (tmp_path / "experiment/seed-0/accuracy.parquet").stat().st_mtime_ns == before


def test_another_specs_results_are_not_overwritten(tiny, tmp_path):
    run(Experiment(**tiny()), tmp_path)
    with pytest.raises(UserError, match=r"seed-0 holds a run with epochs 1, and this one has 2; choose another --out"):
        run(Experiment(**tiny(epochs=2)), tmp_path)


def test_whether_data_may_be_downloaded_is_no_part_of_a_run(tiny, tmp_path):
    stream = tiny()["stream"]
    run(Experiment(**tiny(stream=stream | {"download": True})), tmp_path)
    assert [o.state for o in run(Experiment(**tiny(stream=stream)), tmp_path)] == ["skipped"]


def test_a_run_that_fails_says_why_and_the_others_go_on(tiny, tmp_path):
    outcomes = run(Experiment(**tiny(strategy={"name": "test_runner_names:Breaks"}, seeds=[0, 1])), tmp_path)
    assert [o.state for o in outcomes] == ["failed", "failed"]
    status = read_status(tmp_path / "experiment/seed-0")
    assert status.state == "failed"
    assert "No space left on device" in status.error
    assert status.progress["experience"] == 1
    assert set(accuracy(tmp_path).trained) == {0}, "what was learned before is kept"
    fixed = run(Experiment(**tiny(strategy={"name": "test_runner_names:Breaks"}, seeds=[0])), tmp_path)
    assert fixed[0].state == "failed", "and it is tried again, not skipped"


def test_a_loss_that_is_no_number_ends_the_run(tiny, tmp_path):
    outcome, *_ = run(Experiment(**tiny(optimizer={"name": "sgd", "lr": 1e30})), tmp_path)
    assert outcome.state == "failed"
    assert "optimizer.lr" in outcome.error


def test_foreign_code_that_draws_globally_is_reproducible_and_leaves_the_callers_state(tiny, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    for name in ("a", "b"):
        torch.manual_seed(3)
        run(Experiment(**tiny(strategy={"name": "test_runner_names:DrawsGlobally"})), tmp_path / name)
        assert torch.equal(torch.rand(1), expected)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_loggers_of_avalanche_write_into_the_run(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    run(Experiment(**tiny(loggers=["tensorboard"])), tmp_path)
    assert list((tmp_path / "experiment/seed-0/tensorboard").glob("events*"))


def test_two_processes_do_not_share_a_run_folder(tmp_path):
    first, second = (RunFolder(tmp_path / "run", "x", 0) for _ in range(2))
    first.hold()
    first.write_status("running", {})
    assert read_status(tmp_path / "run").state == "running"
    with pytest.raises(UserError, match=rf"another process \(pid {os.getpid()} on "):
        second.hold()
    first.release()
    assert read_status(tmp_path / "run").state == "died"
