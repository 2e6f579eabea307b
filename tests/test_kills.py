"""SIGKILL at random moments, through the real command line, until the run is done: as if nothing had happened.

`KILLS=100 python -m pytest tests/test_kills.py` kills so often; `-m slow` is the long form of 30 each.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from acn_cl.recipe import load_recipe
from acn_cl.runner import run
from acn_cl.runs.checkpoint import load_checkpoint
from acn_cl.runs.folder import read_status
from acn_cl.runs.weights import load_weights

KILLS = int(os.environ.get("KILLS", "3"))
SPEC = """\
name: killed
stream: {name: split-digits, class_order: fixed, stop_after: 3}
backbone: {name: ac_mixer, depth: 2, width: 16, patch: 4}
strategy: {name: si, lambda: 100}
optimizer: {state: carry, clip_norm: 1.0}
epochs: EPOCHS
batch_size: 32
precision: fp32
device: cpu
checkpoint: {every_seconds: 0}
seeds: 0-1
"""
PATIENCE = 300
"""Seconds for anything to happen: the machine may be busy with other things."""
FIRST_STATUS = 0.2
"""The share of kills that come before the run has said anything: while it imports, reads data, goes on."""


def seeds_folders(out):
    return [out / "killed" / f"seed-{seed}" for seed in (0, 1)]


def start(spec, engine, out):
    command = [sys.executable, "-m", "acn_cl", "run", str(spec), "--engine", engine, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(process, happened):
    until = time.monotonic() + PATIENCE
    while process.poll() is None and not happened():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def status(folder):
    """What a run says of itself; it has learned nothing before it has said anything."""
    path = folder / "status.json"
    nothing = {"state": "none", "progress": {"experience": 0, "epoch": 0, "epochs": 0}}
    return json.loads(path.read_text()) if path.exists() else nothing


def is_done(folder):
    return status(folder)["state"] == "done"


def progress(folder):
    """How many epochs a run says are behind it."""
    said = status(folder)["progress"]
    return said["experience"] * said["epochs"] + said["epoch"]


def saved(folder, epochs):
    checkpoint, complaints = load_checkpoint(folder)
    assert complaints == [], "a kill leaves checkpoints whole, or not there"
    return 0 if checkpoint is None else checkpoint.experience * epochs + checkpoint.epoch


def kill_until_done(spec, engine, out, epochs, kills, chance):
    """Start, kill, start again; how many kills met a living process."""
    met = 0
    for _ in range(kills):
        before = [progress(folder) for folder in seeds_folders(out)]
        process = start(spec, engine, out)
        if chance.random() > FIRST_STATUS:
            wait_until(process, lambda b=before: [progress(folder) for folder in seeds_folders(out)] != b)
        time.sleep(chance.expovariate(1 / 0.4))
        process.kill()
        process.communicate()
        met += process.returncode == -signal.SIGKILL
        for folder in seeds_folders(out):
            if not is_done(folder):
                assert not (folder / "status.json").exists() or read_status(folder).state in ("died", "failed")
                assert progress(folder) - saved(folder, epochs) <= 1, "more than an epoch is lost"
    process = start(spec, engine, out)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return met


def same(a, b):
    for one, other in zip(seeds_folders(a), seeds_folders(b), strict=True):
        for table in ("accuracy", "layers"):
            frames = (pd.read_parquet(folder / f"{table}.parquet") for folder in (one, other))
            pd.testing.assert_frame_equal(*frames, check_exact=True)
        ours, theirs = load_weights(one), load_weights(other)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def killed_and_whole(tmp_path, engine, epochs, kills):
    spec = tmp_path / "killed.yaml"
    spec.write_text(SPEC.replace("EPOCHS", str(epochs)))
    run(load_recipe(str(spec), [f"engine={engine}"]), tmp_path / "whole")
    met = kill_until_done(spec, engine, tmp_path / "cut", epochs, kills, random.Random(kills))
    same(tmp_path / "whole", tmp_path / "cut")
    left = {path.name for path in (tmp_path / "cut").rglob("*") if path.is_file()} - {"run.lock"}
    whole = {path.name for path in (tmp_path / "whole").rglob("*") if path.is_file()} - {"run.lock"}
    assert left == whole, "what was half written is cleared away"
    print(f"{engine}: {met} kills of a living process, {kills - met} too late")
    return met


@pytest.mark.parametrize("engine", ["avalanche", "stacked"])
def test_killed_at_random_moments_it_ends_in_the_same_numbers(tmp_path, engine):
    assert killed_and_whole(tmp_path, engine, epochs=KILLS + 1, kills=KILLS) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["avalanche", "stacked"])
def test_killed_thirty_times_it_ends_in_the_same_numbers(tmp_path, engine):
    assert killed_and_whole(tmp_path, engine, epochs=32, kills=30) >= 25
