"""Two processes under torchrun train what one process trains."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import yaml

from acn_cl.recipe import load_recipe
from acn_cl.runner import run
from acn_cl.runs.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
SPEC = {
    "name": "law",
    "stream": {"name": "split-digits", "stop_after": 2, "images_per_class": 49},
    "backbone": {"name": "ac_mixer", "depth": 2, "width": 12, "patch": 4, "tokens_hidden": 8, "channels_hidden": 12},
    "optimizer": {"name": "adamw", "lr": 5e-3},
    "batch_size": 33,  # two shares of 17 and 16; the third batch holds 32, and a joint one of 196 leaves 31
    "epochs": 2,
    "precision": "fp32",
    "device": "cpu",
}
LAW = SPEC | {
    "matrix": {
        "strategy": [
            "naive",
            {"name": "si", "lambda": 10},
            {"name": "ewc", "lambda": 100},
            {"name": "mas", "each": "image"},
            {"name": "a-gem", "memory": 40},
            "joint",
        ]
    }
}
ODD = SPEC | {
    "name": "odd",
    "stream": SPEC["stream"] | {"images_per_class": 17},
    "accumulate": 3,
    "seeds": [1],
    "epochs": 60,
}
"""34 images in batches of 33: the second process has none of the last batch."""

PROGRAM = '''
"""acn-cl in float64, its images streamed, recipe after recipe in the same processes.

Every process has a folder of its own to write into, if it does.
"""
import os, sys, torch
from acn_cl import cli
from acn_cl.benchmarks.streams.transforms import BatchTransform
from acn_cl.training import placement
from acn_cl.training.images import HostImages

torch.set_default_dtype(torch.float64)
plain, gathered = BatchTransform.evaluate, HostImages._gathered
BatchTransform.evaluate = lambda self, images: plain(self, images).double()
placement.free_memory = lambda device: 1
rank, out, *recipes = os.environ["RANK"], *sys.argv[1:]
sizes = set()

def counted(self, rows):
    found = gathered(self, rows)
    sizes.add(len(found))
    return found

HostImages._gathered = counted
try:
    for recipe in recipes:
        try:
            cli.main(["run", recipe, "--out", f"{out}-{rank}"])
        except SystemExit as end:
            if end.code:
                raise
finally:
    print(f"process {rank} read", *sorted(sizes), flush=True)
'''

OWN = '''
"""A strategy that fails in one process."""
import os
from acn_cl.strategies.plugin import StrategyPlugin

class Fails(StrategyPlugin):
    in_parts = True

    def before_training_epoch(self, strategy, **_):
        if os.environ.get("RANK") == "1":
            raise OSError("the disk of this machine alone is gone")
'''


def together(folder, *arguments, wait=True):
    """Start two processes by the real torchrun."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", *map(str, arguments)]  # a port that is free
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if not wait:
        return process
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def written(spec, path):
    path.write_text(yaml.safe_dump(spec))
    return path


def results(folder):
    accuracy, layers = (pd.read_parquet(folder / f"{name}.parquet") for name in ("accuracy", "layers"))
    tables = [accuracy, layers[layers["quantity"].isin(["gradient_norm", "importance"])].reset_index(drop=True)]
    return load_weights(folder), tables


def same(here, there, tolerance):
    (weights, tables), (others, other_tables) = results(here), results(there)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=tolerance, atol=tolerance)
    for one, other in zip(tables, other_tables, strict=True):  # the loss of a test is taken in fp32
        pd.testing.assert_frame_equal(one, other, rtol=max(tolerance, 1e-5), atol=1e-6)


def spec_of(folder):
    return json.loads((folder / "spec.json").read_text())


def test_two_processes_are_one(tmp_path, double):
    """float64, two experiences, AdamW: parameters to 1e-8, and the tables; then one is stopped and gone on with."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    law, odd = written(LAW, tmp_path / "law.yaml"), written(ODD, tmp_path / "odd.yaml")
    again = written(SPEC | {"name": "again"}, tmp_path / "again.yaml")
    run(load_recipe(str(law)), tmp_path / "one")
    run(load_recipe(str(odd)), tmp_path / "one")

    code, said = together(tmp_path, program, tmp_path / "two", law, again)
    assert code == 0, said
    assert {path.name for path in (tmp_path / "two-0").iterdir()} >= {"naive", "again"}, "a second recipe joins as well"
    folders = sorted(path.parent for path in (tmp_path / "one").glob("*/seed-0/spec.json"))
    assert len(folders) == 6
    for folder in folders:
        other = tmp_path / "two-0" / folder.relative_to(tmp_path / "one")
        same(folder, other, 1e-8)
        assert {"processes": 2, "backend": "gloo", "images": "streamed", "stack": 1}.items() <= spec_of(other).items()
    assert spec_of(folders[0])["processes"] == 1
    assert not (tmp_path / "two-1").exists(), "only the first process writes"
    assert said.count("naive seed 0: done") == 1, "or speaks"

    process = together(tmp_path, program, tmp_path / "cut", odd, wait=False)
    status = tmp_path / "cut-0/odd/seed-1/status.json"
    while process.poll() is None and not (status.exists() and json.loads(status.read_text())["progress"]["epoch"]):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    found = json.loads(status.read_text())
    assert process.returncode != 0
    assert found["state"] == "failed" and "interrupted" in found["error"], said
    assert list(status.parent.glob("checkpoints/*/manifest.json"))
    code, said = together(tmp_path, program, tmp_path / "cut", odd)
    assert code == 0 and "goes on from its checkpoint" in said, said
    same(tmp_path / "one/odd/seed-1", status.parent, 1e-8)
    assert "process 0 read" in said and "process 1 read" in said


def test_the_real_command_in_fp32_and_a_process_that_fails_alone(tmp_path):
    """The tolerance is what two orders of summation make of fp32 in two experiences of SGD."""
    (tmp_path / "own.py").write_text(OWN)
    spec = SPEC | {
        "name": "both",
        "optimizer": {"name": "sgd", "lr": 0.1},
        "matrix": {"strategy": [{"name": "si"}, {"name": "own:Fails"}]},
    }
    recipe = written(spec, tmp_path / "both.yaml")
    alone = written(spec | {"matrix": {"strategy": [{"name": "si"}]}}, tmp_path / "alone.yaml")
    run(load_recipe(str(alone)), tmp_path / "one")
    code, said = together(tmp_path, "-m", "acn_cl.cli", "run", recipe, "--out", tmp_path / "two")
    assert code == 1, "torchrun's own, when a process ends with another code than 0"
    one, two = (next((tmp_path / which).glob("*si*/seed-0")) for which in ("one", "two"))
    same(one, two, 1e-4)
    failed = json.loads(next((tmp_path / "two").glob("*Fails*/seed-0/status.json")).read_text())
    assert failed["state"] == "failed" and "another of the processes" in failed["error"], failed
    assert "process 1:" in said and "the disk of this machine alone is gone" in said
    assert "exitcode  : 3" in said
