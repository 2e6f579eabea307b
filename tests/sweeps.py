"""What the tests of executors have in common. Not a test file: load it with

helpers = SimpleNamespace(**run_path(str(Path(__file__).with_name("sweeps.py"))))
"""

import json
import os
import signal
import sys
import time

import pandas as pd
import torch

from acn_cl.runner import Quiet
from acn_cl.runs.folder import read_status
from acn_cl.runs.weights import load_weights
from acn_cl.training.interrupt import StopRequest

LONG = 120.0  # seconds; far more than anything here takes


def same_runs(one, other):
    """Every run in two folders: the same tables, weights and circumstances, to the last bit."""
    folders = sorted(path.parent.relative_to(one) for path in one.glob("*/seed-*/spec.json"))
    assert folders and folders == sorted(path.parent.relative_to(other) for path in other.glob("*/seed-*/spec.json"))
    for folder in folders:
        for table in ("accuracy", "layers"):
            pd.testing.assert_frame_equal(
                *(pd.read_parquet(root / folder / f"{table}.parquet") for root in (one, other))
            )
        a, b = (load_weights(root / folder) for root in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        specs = [json.loads((root / folder / "spec.json").read_text()) for root in (one, other)]
        for key in ("threads", "stack", "device", "precision"):
            assert specs[0][key] == specs[1][key], key


def until(condition, seconds=LONG):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)
    return found


class Listens(Quiet):
    """Keeps what it is told, and acts when a condition holds."""

    def __init__(self):
        self.notes, self.ended = [], []

    def note(self, text):
        self.notes.append(text)

    def run_ended(self, outcome):
        self.ended.append(outcome)


class Kills(Listens):
    """Kills the worker that has learned an experience of the first run that it hears of."""

    victim = None

    def sent(self, folders, total):
        if self.victim is None:
            status = folders[0] / "status.json"
            until(lambda: status.exists() and read_status(folders[0]).progress["experience"] >= 1)
            self.victim = read_status(folders[0]).raw["pid"]
            os.kill(self.victim, signal.SIGKILL)


class Stops(Listens):
    """Asks for a stop when the first run that it hears of has learned an epoch."""

    def __init__(self):
        super().__init__()
        self.stop = StopRequest()

    def sent(self, folders, total):
        until(lambda: is_training(folders[0]))
        self.stop.signal = signal.SIGINT


def sweep(folder):
    """The command line of two runs that last a while, into ``folder/runs/sweep/``."""
    spec = folder / "sweep.yaml"
    spec.write_text(
        "stream: {name: split-digits, stop_after: 2}\nprecision: fp32\nbatch_size: 64\nseeds: 0-1\nepochs: 60\n"
        "backbone: {name: ac_mixer, depth: 2, width: 16, patch: 4, tokens_hidden: 8, channels_hidden: 16}\n"
        "checkpoint: {every_seconds: 0.2}\n"
    )
    return [sys.executable, "-m", "acn_cl", "run", str(spec), "--out", str(folder / "runs")]


def is_training(folder):
    """Whether the run in a folder has learned an epoch."""
    return (folder / "status.json").exists() and read_status(folder).progress.get("epoch", 0) > 0


def is_saved(folder):
    """Whether the run in a folder has a checkpoint to go on from."""
    return any((folder / "checkpoints").glob("[0-9]*"))
