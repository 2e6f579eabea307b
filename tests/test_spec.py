"""The spec: what is right is filled in, what is wrong is said in one line that names the key and the nearest value."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acn_cl.errors import SpecError
from acn_cl.spec import Experiment, parse_seeds


def test_only_the_stream_need_be_named_and_everything_is_filled_in():
    spec = Experiment(stream={"name": "split-digits"}).as_dict()
    assert spec["stream"]["experiences"] == 5
    assert spec["stream"]["scenario"] == "task-incremental"
    assert spec["stream"]["labels"] == "per-experience"
    assert (spec["backbone"]["block"], spec["backbone"]["wiring"]) == ("mixer", "acn")
    assert spec["optimizer"] == {
        "name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "momentum": 0.0, "state": "reset", "clip_norm": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        {"stream": {"name": "split-digits"}, "backbone": {"name": "ac_mixer", "patch": 2}},
        {"stream": {"name": "split-cifar100"}, "strategy": {"name": "si", "lambda": 3}},
        {"stream": {"name": "split-digits", "scenario": "class-incremental"}, "strategy": {"name": "ewc"}},
        {"stream": {"name": "permuted-mnist"}, "backbone": {"block": "mlp", "wiring": "residual", "depth": 3}},
        {"stream": {"name": "split-digits"}, "backbone": {"name": "lab.nets:Net", "size": 3}},
        {"stream": {"name": "online-digits"}, "backbone": {"patch": 4}, "evaluate_every": {"steps": 3}},
    ],
)
def test_a_resolved_spec_reads_back_as_itself(spec):
    spec.setdefault("backbone", {"name": "ac_mixer", "patch": 4})
    resolved = Experiment.model_validate(spec)
    again = Experiment.model_validate(json.loads(json.dumps(resolved.as_dict())))
    assert again.as_dict() == resolved.as_dict()


def test_an_online_stream_is_seen_once():
    online = {"stream": {"name": "online-digits"}, "backbone": {"patch": 4}}
    assert (Experiment(**online).epochs, Experiment(**online).batch_size) == (1, 10)
    assert Experiment(**online, batch_size=32).batch_size == 32
    with pytest.raises(SpecError, match=r"epochs: online-digits is seen once"):
        Experiment(**online, epochs=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": {"name": "split-digit"}}, r"stream: unknown stream 'split-digit'; did you mean 'split-digits'"),
        ({"stream": {"name": "split-digits", "experience": 5}}, r"stream\.experience: .*did you mean 'experiences'"),
        ({"stream": {"name": "split-digits", "experiences": 3}}, r"stream\.experiences: .*nearest.* 2 or 5"),
        ({"strategy": {"name": "naiv"}}, r"strategy: unknown strategy 'naiv'; did you mean 'naive'"),
        ({"strategy": {"name": "si", "lamda": 1}}, r"strategy\.lamda: .*did you mean 'lambda'"),
        ({"strategy": {"name": "si", "lambda": -1}}, r"strategy\.lambda: .*greater than or equal to 0"),
        ({"strategy": {"name": "naive", "lambda": 1}}, r"strategy\.lambda: there is no such key"),
        ({"backbone": {"name": "ac_mixer", "patch": 3}}, r"backbone\.patch: .*2 or 4"),
        ({"backbone": {"name": "ac_mixr"}}, r"backbone.*did you mean 'ac_mixer'"),
        ({"backbone": {"name": "ac_mixer", "patch": 4, "depht": 3}}, r"backbone\.depht: .*did you mean 'depth'"),
        ({"backbone": {"name": "ac_mixer", "patch": 4, "depth": -1}}, r"backbone\.depth: .*greater than or equal to 1"),
        ({"optimizer": {"name": "adamw", "momentum": 0.9}}, r"optimizer\.momentum: adamw takes none"),
        ({"schedule": {"floor": 1e-6}}, r"schedule\.floor: a constant schedule has none"),
        ({"schedule": {"warmup_epochs": 30}}, r"schedule\.warmup_epochs: 30 is more than epochs, 10"),
        ({"corruptions": ["gausian-0.1"]}, r"corruptions: unknown corruption 'gausian-0.1'.*did you mean 'gaussian'"),
        ({"seeds": [1, 1]}, r"seeds: a seed stands twice"),
    ],
)
def test_what_does_not_go_together_is_named(changes, message):
    spec = {"stream": {"name": "split-digits"}, "backbone": {"name": "ac_mixer", "patch": 4}, **changes}
    with pytest.raises(SpecError, match=message) as caught:
        Experiment.model_validate(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 0), ("epochs", "ten"), ("epochs", True), ("batch_size", 1.5), ("precision", "fp16"), ("device", "gpu"),
     ("seeds", []), ("seeds", "3-1"), ("seeds", [-1]), ("optimizer", {"lr": 0}), ("optimizer", {"lr": True}),
     ("optimizer", {"lr": float("nan")}), ("nmae", "x"), ("name", "../up"), ("loss", {"cutmix": 2})],
)  # fmt: skip
def test_wrong_types_and_ranges_are_refused(key, value):
    with pytest.raises((ValidationError, SpecError)):
        Experiment.model_validate({"stream": {"name": "split-digits"}, "backbone": {"patch": 4}, key: value})


def test_numbers_may_be_written_as_yaml_1_1_misreads_them():
    spec = {"stream": {"name": "split-digits"}, "backbone": {"patch": 4}, "optimizer": {"lr": "1e-3"}}
    assert Experiment.model_validate(spec).optimizer.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("0,2, 5-6", (0, 2, 5, 6)), ("3-3", (3,)), (4, (4,))]
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["3-1", "a", "", "1-", "-1", "1,,2", "0 4"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r"seeds such as|backwards"):
        parse_seeds(text)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
def test_a_list_of_seeds_written_as_text_is_the_list(seeds):
    assert parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


def test_checking_a_spec_imports_no_torch():
    """A mistake shows at once: importing torch and Avalanche takes seconds."""
    code = (
        "import sys\n"
        "import acn_cl\n"
        "from acn_cl.recipe import load_recipe\n"
        "load_recipe('split-cifar100')\n"
        "load_recipe('quick', ['strategy.lambda=3'])\n"
        "slow = [m for m in ('torch', 'avalanche', 'torchvision', 'pandas', 'sklearn') if m in sys.modules]\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
