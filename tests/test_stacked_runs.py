"""Stacks of runs in run folders: what a stack records, how it is stopped and gone on with, and whose fault is whose."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import psutil
import pytest

import acn_cl.bookkeeping
from acn_cl.bookkeeping import Quiet
from acn_cl.errors import UserError
from acn_cl.runner import run
from acn_cl.spec import Experiment
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.stack_training import StackTraining

SI = {"name": "si", "lambda": 10.0}
SEEDS = (0, 1, 2)
STREAM = {"name": "split-digits", "class_order": "fixed"}  # digits have unequal classes: another order, other sizes


def experiment(tiny, **changes):
    return Experiment(
        **tiny(**({"stream": STREAM, "strategy": SI, "epochs": 2, "seeds": SEEDS, "engine": "stacked"} | changes))
    )


def accuracy(out, seed):
    return pd.read_parquet(out / f"experiment/seed-{seed}/accuracy.parquet")


def spec_of(out, seed):
    return json.loads((out / f"experiment/seed-{seed}/spec.json").read_text())


def test_a_stack_is_the_runs_of_avalanches_loop(tiny, tmp_path):
    """In fp32 on 60 steps: single test images may fall on the other side, and no more."""
    outcomes = run(experiment(tiny), tmp_path / "stack")
    run(experiment(tiny, engine="avalanche"), tmp_path / "alone")
    assert [(o.seed, o.state) for o in outcomes] == [(seed, "done") for seed in SEEDS]
    for seed in SEEDS:
        assert spec_of(tmp_path / "stack", seed)["stack"] == 3
        assert spec_of(tmp_path / "alone", seed)["stack"] == 1
        assert spec_of(tmp_path / "stack", seed)["class_order"] == spec_of(tmp_path / "alone", seed)["class_order"]
        one, other = accuracy(tmp_path / "stack", seed), accuracy(tmp_path / "alone", seed)
        keys = ["trained", "step", "evaluated", "part", "condition", "depth", "samples"]
        pd.testing.assert_frame_equal(one[keys], other[keys])
        assert np.abs(one["accuracy"] - other["accuracy"]).max() <= 2 / one["samples"].min()
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-2, atol=1e-3)


def test_spec_json_says_what_a_run_cost(tiny, tmp_path):
    run(experiment(tiny), tmp_path)
    for seed in SEEDS:
        spec = spec_of(tmp_path, seed)
        assert len(spec["flops_by_depth"]) == spec["experiment"]["backbone"]["depth"] + 1
        assert spec["flops_by_depth"] == sorted(spec["flops_by_depth"])
        assert 1e8 < spec["peak_memory"] < psutil.virtual_memory().total, "bytes"


def test_without_a_wish_a_cpu_trains_run_by_run_with_the_lean_step(tiny, tmp_path):
    """Bit for bit what Avalanche's loop gives."""
    run(experiment(tiny, engine="auto"), tmp_path / "auto")
    run(experiment(tiny, engine="avalanche"), tmp_path / "avalanche")
    for seed in SEEDS:
        assert spec_of(tmp_path / "auto", seed)["stack"] == 1
        pd.testing.assert_frame_equal(accuracy(tmp_path / "auto", seed), accuracy(tmp_path / "avalanche", seed))


@pytest.mark.parametrize("epochs", [1, 3, 8, 14])
def test_a_stack_that_was_stopped_ends_in_the_same_numbers(tiny, tmp_path, epochs, stopped):
    stream = STREAM | {"scenario": "class-incremental" if epochs == 3 else "task-incremental"}
    run(experiment(tiny, stream=stream), tmp_path / "whole")
    stopped(experiment(tiny, stream=stream), tmp_path / "cut", epochs)
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / "cut").rglob("status.json")]
    assert states == ["failed"] * 3
    assert [o.state for o in run(experiment(tiny, stream=stream), tmp_path / "cut")] == ["done"] * 3
    for seed in SEEDS:
        pd.testing.assert_frame_equal(accuracy(tmp_path / "whole", seed), accuracy(tmp_path / "cut", seed))
        for table in ("layers", "accuracy", "confusion"):
            one, other = (
                pd.read_parquet(tmp_path / f / f"experiment/seed-{seed}/{table}.parquet") for f in ("whole", "cut")
            )
            pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("engine", ["auto", "stacked"])
def test_a_stop_right_after_the_last_batch_of_an_epoch_is_gone_on_from(tiny, tmp_path, monkeypatch, engine):
    """Nothing is left of that epoch but its end."""
    run(experiment(tiny, engine=engine), tmp_path / "whole")
    request, told = StopRequest(), StackTraining._step_over

    def step_over(self, position, steps):
        if position == (1, 0, self._learner.steps_per_epoch(1)):
            request.signal = signal.SIGINT
        told(self, position, steps)

    with monkeypatch.context() as patched:
        patched.setattr(StackTraining, "_step_over", step_over)
        with pytest.raises(Interrupted):
            run(experiment(tiny, engine=engine), tmp_path / "cut", stop=request)
    assert all(o.state == "done" for o in run(experiment(tiny, engine=engine), tmp_path / "cut"))
    for seed in SEEDS:
        pd.testing.assert_frame_equal(accuracy(tmp_path / "whole", seed), accuracy(tmp_path / "cut", seed))


def test_runs_of_unequal_sizes_are_not_stacked(tiny, tmp_path):
    run(experiment(tiny, stream={"name": "split-digits", "class_order": "seeded"}), tmp_path)
    sizes = [tuple(accuracy(tmp_path, seed).groupby("evaluated")["samples"].first()) for seed in SEEDS]
    assert [spec_of(tmp_path, seed)["stack"] for seed in SEEDS] == [sizes.count(own) for own in sizes]


def test_runs_at_other_positions_go_on_apart(tiny, tmp_path, stopped):
    """Seed 0 was begun alone; the others join the folder later and make a stack of their own."""
    stopped(experiment(tiny, seeds=(0,)), tmp_path / "cut", 3)
    outcomes = run(experiment(tiny), tmp_path / "cut")
    assert [(o.seed, o.state) for o in outcomes] == [(seed, "done") for seed in SEEDS]
    assert [spec_of(tmp_path / "cut", seed)["stack"] for seed in SEEDS] == [1, 2, 2]
    assert [o.state for o in run(experiment(tiny), tmp_path / "cut")] == ["skipped"] * 3


def newest_checkpoint(out, seed):
    places = (out / f"experiment/seed-{seed}/checkpoints").iterdir()
    return max(places, key=lambda path: [int(part) for part in path.name.split("-")])


def damage(checkpoint):
    (checkpoint / "state.safetensors").write_bytes(b"garbage")


@pytest.mark.parametrize("harm", [damage, shutil.rmtree])
@pytest.mark.parametrize(("seconds", "back_to"), [(0, "experience 2, epoch 2, batch 1"), (60, "the beginning")])
def test_a_stack_goes_back_to_what_all_of_it_have(tiny, tmp_path, stopped, harm, seconds, back_to):
    """A kill came before the last run was saved, or what was saved is damaged: the width is what it was."""
    spec = experiment(tiny, checkpoint={"every_seconds": seconds})
    run(spec, tmp_path / "whole")
    stopped(spec, tmp_path / "cut", 7 if seconds == 0 else 1)
    newest = newest_checkpoint(tmp_path / "cut", 2)
    harm(newest)
    said = []
    display = Quiet()
    display.note = said.append
    assert [o.state for o in run(spec, tmp_path / "cut", display)] == ["done"] * 3
    told = "\n".join(said)
    if harm is damage:
        assert f"{newest}: damaged: state.safetensors is missing or is not what was written" in told
    assert [f"seed {seed}: goes back with its stack to {back_to}" in told for seed in SEEDS] == [True, True, False]
    for seed in SEEDS:
        assert spec_of(tmp_path / "cut", seed)["stack"] == 3
        pd.testing.assert_frame_equal(accuracy(tmp_path / "whole", seed), accuracy(tmp_path / "cut", seed))


def test_a_run_that_has_nothing_in_common_with_its_stack_goes_on_apart(tiny, tmp_path, stopped):
    """Seed 2 has lost both of its checkpoints: the others do not begin anew with it."""
    spec = experiment(tiny, checkpoint={"every_seconds": 0})
    stopped(spec, tmp_path, 7)
    shutil.rmtree(tmp_path / "experiment/seed-2/checkpoints")
    assert [o.state for o in run(spec, tmp_path)] == ["done"] * 3
    assert [spec_of(tmp_path, seed)["stack"] for seed in SEEDS] == [2, 2, 1]


def test_a_run_whose_folder_fails_leaves_the_others_alone(tiny, tmp_path, monkeypatch):
    run(experiment(tiny), tmp_path / "whole")
    save = acn_cl.bookkeeping.save_checkpoint

    def fails(path, checkpoint):
        if path.name == "seed-1":
            raise OSError(28, "No space left on device")
        save(path, checkpoint)

    monkeypatch.setattr("acn_cl.bookkeeping.save_checkpoint", fails)
    first, second, third = run(experiment(tiny), tmp_path / "full")
    assert (first.state, second.state, third.state) == ("done", "failed", "done")
    assert "No space left" in second.error
    for seed in (0, 2):
        pd.testing.assert_frame_equal(accuracy(tmp_path / "whole", seed), accuracy(tmp_path / "full", seed))


def test_the_stack_tells_of_each_experience_once(tiny, tmp_path):
    told = []

    class Listens(Quiet):
        def run_started(self, number, total, name, experiences, epochs):
            told.append(name)

        def experience_done(self, experience, results):
            told.append(experience)

    run(experiment(tiny), tmp_path, Listens())
    assert told == ["experiment seed 0 and 2 more at once", *range(5)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"strategy": {"name": "lwf"}}, "strategy lwf needs more of a step"),
        ({"loggers": ["tensorboard"]}, "Avalanche's loggers need its call-backs"),
    ],
)
def test_what_cannot_be_stacked_is_refused_before_anything_is_made(tiny, tmp_path, changes, why):
    with pytest.raises(UserError, match=why):
        run(experiment(tiny, **changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
