"""The same spec twice gives the same bytes; and the caller's random numbers are not touched."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from acn_cl.runner import run
from acn_cl.runs.weights import load_weights
from acn_cl.spec import Experiment

SPECS = {
    "naive": {},
    "si": {"strategy": {"name": "si", "lambda": 50}},
    "replay": {"strategy": {"name": "replay", "memory": 40}},
    "stacked-naive": {"engine": "stacked"},
    "stacked-si": {"engine": "stacked", "strategy": {"name": "si", "lambda": 50}},
}
FILES = ("accuracy.parquet", "layers.parquet", "checkpoints/3-0/model.safetensors")


class DrawsEverywhere(SupervisedPlugin):
    """Somebody's own: draws from every global generator, when it is made and when it trains."""

    def __init__(self):
        super().__init__()
        self.scale = self.draw()

    def draw(self):
        return random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002

    def before_forward(self, strategy, **_):
        strategy.mb_x.add_(0.1 * self.scale * self.draw())


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "test_determinism_names", sys.modules[__name__])


@pytest.fixture(scope="module")
def specs(tiny):
    # All experiences of equal sizes, to be stacked.
    stream = {"name": "split-digits", "class_order": "fixed", "stop_after": 3}
    common = {"stream": stream, "seeds": [0, 1], "deterministic": True}
    return {name: tiny(name=name, **common, **changes) for name, changes in SPECS.items()}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, specs):
    """All of them, run by another process, in which what is hashed has another order."""
    out = tmp_path_factory.mktemp("elsewhere")
    code = (
        "import json, sys\nfrom acn_cl import Experiment, run\n"
        "for spec in json.loads(sys.argv[1]).values():\n    run(Experiment(**spec), sys.argv[2])\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, json.dumps(specs), out], check=True, timeout=600, env=environment)
    return out


@pytest.mark.parametrize("name", SPECS)
def test_twice_the_same_bytes(tmp_path, specs, elsewhere, name):
    before = torch.are_deterministic_algorithms_enabled()
    run(Experiment(**specs[name]), tmp_path)
    assert torch.are_deterministic_algorithms_enabled() == before, "the caller's setting is put back"
    for seed in (0, 1):
        for file in FILES:
            one, other = (folder / name / f"seed-{seed}" / file for folder in (tmp_path, elsewhere))
            assert one.read_bytes() == other.read_bytes(), file
        stack = json.loads((tmp_path / name / f"seed-{seed}/spec.json").read_text())["stack"]
        assert stack == (2 if name.startswith("stacked") else 1)


class NotTwiceTheSame(SupervisedPlugin):
    """Calls an operation of which torch says that it has no deterministic form."""

    def before_forward(self, strategy, **_):
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_what_torch_cannot_do_the_same_way_twice_ends_the_run(tiny, tmp_path):
    strategy = {"name": "test_determinism_names:NotTwiceTheSame"}
    for wanted, state in ((False, "done"), (True, "failed")):
        (outcome,) = run(Experiment(**tiny(strategy=strategy, deterministic=wanted)), tmp_path / state)
        assert outcome.state == state
    assert "deterministic" in outcome.error


def global_state():
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), keys.tolist(), rest, torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    "changes",
    [{}, {"engine": "stacked"}, {"strategy": {"name": "test_determinism_names:DrawsEverywhere"}}],
    ids=["alone", "stacked", "somebody's own"],
)
def test_the_callers_random_numbers_are_left_alone(tiny, tmp_path, changes):
    experiment = Experiment(
        **tiny(seeds=[0, 1], stream={"name": "split-digits", "stop_after": 2, "class_order": "fixed"}, **changes)
    )
    weights = []
    for caller in (1, 2):
        random.seed(caller)
        np.random.seed(caller)  # noqa: NPY002
        torch.manual_seed(caller)
        before = global_state()
        run(experiment, tmp_path / str(caller))
        assert global_state() == before
        weights.append(load_weights(tmp_path / str(caller) / "experiment/seed-1"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "nor do they reach the run"


def test_a_failed_run_leaves_them_alone_too(tiny, tmp_path):
    before = global_state()
    (outcome,) = run(Experiment(**tiny(optimizer={"name": "sgd", "lr": 1e30})), tmp_path)
    assert outcome.state == "failed" and global_state() == before
