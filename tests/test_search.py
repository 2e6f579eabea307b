"""Hyper-parameter search: what is tried, what is chosen, and that the test part has no say in it."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import acn_cl.training.session
from acn_cl.adaptive import Adaptive
from acn_cl.choosing import validation_accuracy
from acn_cl.errors import UserError
from acn_cl.executors.processes import Processes
from acn_cl.recipe import load_recipe
from acn_cl.runner import Quiet, run
from acn_cl.runs.folder import read_status
from acn_cl.search import Range, SearchSection, best
from acn_cl.share import Share

SPEC = """\
name: tuned
stream: {name: split-digits, validation: 0.3, stop_after: 3}
backbone: {name: ac_mixer, depth: 1, width: 16, patch: 4, tokens_hidden: 8, channels_hidden: 16}
epochs: 2
precision: fp32
device: cpu
seeds: 0-1
"""
SEARCH = "search: {space: {optimizer.lr: [1.0e-7, 1.0e-2, 1.0e-5]}}\n"


@pytest.fixture
def recipe(tmp_path):
    """``recipe(text)``: the spec above with a search of its own."""

    def make(search=SEARCH, *sets, spec=SPEC):
        path = tmp_path / "tuned.yaml"
        path.write_text(spec + search)
        return load_recipe(str(path), sets)

    return make


# What is tried.


def test_a_grid_is_every_combination_in_order():
    section = SearchSection(space={"a": [1, 2], "b": ["x", "y", "z"]})
    assert [(s["a"], s["b"]) for s in section.settings()] == [(a, b) for a in (1, 2) for b in "xyz"]


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 30))
def test_more_random_trials_add_to_those_of_fewer(seed, few, more):
    space = {"lr": {"loguniform": [1e-4, 1e-1]}, "wd": {"uniform": [0.0, 0.1]}, "name": ["a", "b"]}
    one, other = (
        SearchSection(method="random", space=space, trials=n, seed=seed).settings() for n in (few, few + more)
    )
    assert other[: len(one)] == one
    for setting in other:
        assert 1e-4 <= setting["lr"] <= 1e-1 and 0 <= setting["wd"] <= 0.1 and setting["name"] in "ab"


def test_random_draws_are_spread_as_they_are_called():
    """The medians of the two distributions: the mean of the bounds, and their geometric mean."""
    assert Range(uniform=(2.0, 4.0)).at(0.5) == 3.0
    assert Range(loguniform=(1e-4, 1e-2)).at(0.5) == 1e-3
    space = {"plain": {"uniform": [0.0, 1.0]}, "log": {"loguniform": [1e-6, 1.0]}, "one": ["a", "b"]}
    drawn = SearchSection(method="random", space=space, trials=2000).settings()
    assert abs(np.median([s["plain"] for s in drawn]) - 0.5) < 0.05
    assert abs(np.median([math.log10(s["log"]) for s in drawn]) + 3) < 0.25
    assert 0.45 < np.mean([s["one"] == "a" for s in drawn]) < 0.55


@given(st.lists(st.none() | st.floats(0, 1), min_size=1))
def test_the_best_is_the_first_of_the_highest(scores):
    known = [score for score in scores if score is not None]
    if not known:
        with pytest.raises(ValueError, match="every trial failed"):
            best(scores)
        return
    assert scores[best(scores)] == max(known)
    assert max(known) not in scores[: best(scores)]


def test_an_experiment_is_searched_for_the_keys_that_it_has(recipe):
    search = "matrix: {strategy: [naive, si]}\nsearch: {space: {strategy.lambda: [1, 10], optimizer.lr: [0.1, 0.2]}}\n"
    naive, si = recipe(search).searches
    assert [trial.setting for trial in naive.trials] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]
    assert len(si.trials) == 4
    assert si.trials[0].judged.id == "si-lambda1-lr0.1"
    assert {trial.planned.id for trial in si.trials} == {"si"}, "an experiment's name does not hang on what is chosen"


def test_trials_learn_the_first_experiences_and_do_not_test(recipe):
    search = SEARCH.replace("{space", "{evaluate_on: 2, seeds: 5-6, space")
    (search,) = recipe(search).searches
    for trial in search.trials:
        assert trial.judged.experiment.stream.stop_after == 2
        assert trial.judged.experiment.seeds == (5, 6)
        assert not trial.judged.experiment.test_part
        assert trial.planned.experiment.stream.stop_after == 3 and trial.planned.experiment.test_part
        assert trial.planned.experiment.optimizer.lr == trial.setting["optimizer.lr"]


@pytest.mark.parametrize(
    ("search", "sets", "message"),
    [
        (
            SEARCH,
            ["stream.validation=0"],
            r"tuned\.yaml:8: search: it chooses on the validation part.*stream\.validation",
        ),
        ("search: {}\n", [], r"tuned\.yaml:8: search\.space: this key is needed"),
        ("search: {spaces: {}}\n", [], r"search\.space: this key is needed"),
        (
            "search: {space: {optimizer.lr: 3}}\n",
            [],
            r"tuned\.yaml:8: search\.space\.optimizer\.lr: a list of values is",
        ),
        ("search: {space: {optimizer.lr: {uniform: [1, 2]}}}\n", [], r"a grid needs a list of values"),
        ("search: {method: random, space: {optimizer.lr: [1]}}\n", [], r"random needs a number of trials"),
        ("search: {trials: 3, space: {optimizer.lr: [1]}}\n", [], r"a grid tries all its settings"),
        ("search: {method: adaptive, space: {optimizer.lr: [1]}}\n", [], r"adaptive needs a number of trials"),
        ("search: {at_a_time: 2, space: {optimizer.lr: [1]}}\n", [], r"grid makes all its trials at once"),
        (
            "search: {method: adaptive, trials: 2, space: {optimizer.lr: {uniform: [-1, 1]}}}\n",
            [],
            r"tuned\.yaml:8: optimizer\.lr: should be greater than 0",
        ),
        ("search: {space: {optimiser.lr: [1]}}\n", [], r"no such axis; did you mean 'optimizer'"),
        ("search: {space: {optimizer.lr: [-1.0]}}\n", [], r"tuned\.yaml:8: optimizer\.lr: should be greater than 0"),
        ("search: {space: {strategy.lamda: [1]}}\n", [], r"no strategy of the recipe has it"),
        (SEARCH, ["optimizer.lr=1"], r"--set optimizer\.lr: the search chooses it"),
        (SEARCH, ["search.evaluate_on=0"], r"search\.evaluate_on: should be greater than or equal to 1"),
        (SEARCH, ["search.evaluate_on=9"], r"search\.evaluate_on: 9 is not possible"),
        ("matrix: {optimizer.lr: [0.1, 0.2]}\n" + SEARCH, [], r"it is an axis of the matrix"),
        (
            "search: {method: random, trials: 2, space: {optimizer.lr: {loguniform: [0, 1]}}}\n",
            [],
            r"is no range of it",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_clear_line(recipe, search, sets, message):
    with pytest.raises(UserError, match=message) as error:
        recipe(search, *sets)
    assert "\n" not in str(error.value)


def test_overrides_reach_the_search_or_switch_it_off(recipe):
    (search,) = recipe(SEARCH, "search.space.optimizer.lr=[0.5]", "search.seeds=3-4").searches
    assert [trial.setting for trial in search.trials] == [{"optimizer.lr": 0.5}]
    assert search.trials[0].judged.experiment.seeds == (3, 4)
    assert recipe(SEARCH, "search=null").searches == ()


# What is chosen.


def choice(runs):
    return json.loads((runs / "tuned/seed-0/spec.json").read_text())["search"]


def test_the_setting_that_does_best_on_held_out_images_is_trained_and_recorded(recipe, tmp_path):
    """A step of 1e-7 or 1e-5 learns nothing in 30 steps, whatever the seed."""
    told = []

    class Listens(Quiet):
        def note(self, text):
            told.append(text)

    outcomes = run(recipe(), tmp_path / "runs", Listens())
    assert [(o.experiment, o.seed, o.state) for o in outcomes] == [("tuned", 0, "done"), ("tuned", 1, "done")]
    for seed in (0, 1):
        spec = json.loads((tmp_path / f"runs/tuned/seed-{seed}/spec.json").read_text())
        assert spec["experiment"]["optimizer"]["lr"] == 1e-2
        assert spec["search"]["chosen"] == {"optimizer.lr": 1e-2}
        tried = {one["setting"]["optimizer.lr"]: one["score"] for one in spec["search"]["tried"]}
        assert list(tried) == [1e-7, 1e-2, 1e-5]
    assert any("optimizer.lr=0.01 of 3 tried" in line for line in told)
    for rate, score in tried.items():  # again, with nothing of ours but the table
        (folder,) = [p.parent for p in (tmp_path / "runs/search").glob("*/seed-0/spec.json") if f"lr{rate:g}" in str(p)]
        rows = pd.read_parquet(folder / "accuracy.parquet")
        assert set(rows.part) == {"validation"}, "a trial does not look at the test part"
        last = rows[(rows.trained == 2) & (rows.depth == 1)].set_index("evaluated").accuracy
        assert score == pytest.approx(sum(last[e] for e in range(3)) / 3)
        assert not list((folder / "checkpoints").glob("*/model.safetensors"))
    assert [o.state for o in run(recipe(), tmp_path / "runs")] == ["skipped"] * 2, "and the trials with them"


@pytest.mark.parametrize("engine", ["avalanche", "auto", "stacked"])
def test_the_test_part_is_never_used_to_choose(recipe, tmp_path, monkeypatch, engine):
    """Test labels that would turn every choice around: the scores are the same to the last bit."""
    spec = SPEC.replace("seeds: 0-1", f"seeds: 0\nengine: {engine}")
    run(recipe(spec=spec), tmp_path / "true")
    build = acn_cl.training.session.build_stream

    def poisoned(experiment, seeds):
        stream = build(experiment, seeds)
        for one in stream.experiences:
            one.test.labels[:] = one.test.labels[::-1].copy()
        return stream

    monkeypatch.setattr("acn_cl.training.session.build_stream", poisoned)
    monkeypatch.setattr("acn_cl.training.stack_run.build_stream", poisoned)
    run(recipe(spec=spec), tmp_path / "poisoned")
    assert choice(tmp_path / "true") == choice(tmp_path / "poisoned")
    accuracies = [pd.read_parquet(tmp_path / n / "tuned/seed-0/accuracy.parquet") for n in ("true", "poisoned")]
    parts = [table[table.part == "test"].accuracy.mean() for table in accuracies]
    assert parts[0] != parts[1], "the poison is there"


def test_the_validation_score_is_of_the_last_moment_the_whole_depth_and_what_was_learned(tmp_path, monkeypatch):
    rows = [
        # trained, step, evaluated, part, depth, accuracy
        (1, -1, 0, "validation", 2, 0.5),
        (1, -1, 1, "validation", 2, 0.7),
        (1, -1, 2, "validation", 2, 0.0),  # not learned yet
        (1, -1, 0, "test", 2, 0.0),
        (1, -1, 1, "validation", 1, 0.0),
        (0, -1, 0, "validation", 2, 0.0),
        (0, 5, 1, "validation", 2, 0.0),
    ]
    table = pd.DataFrame(rows, columns=["trained", "step", "evaluated", "part", "depth", "accuracy"])
    run_read = type("Run", (), {"accuracy": table.assign(condition="clean")})
    monkeypatch.setattr("acn_cl.choosing.read_run", lambda folder: run_read)
    assert validation_accuracy(tmp_path) == pytest.approx(0.6)


def test_a_trial_that_fails_is_not_chosen_and_if_all_do_it_is_said(recipe, tmp_path):
    search = "optimizer: {name: sgd}\nsearch: {space: {optimizer.lr: [1.0e+30, 1.0e-2]}}\n"
    assert [o.state for o in run(recipe(search), tmp_path / "one")] == ["done"] * 2
    spec = json.loads((tmp_path / "one/tuned/seed-0/spec.json").read_text())
    assert spec["search"]["tried"][0]["score"] is None and spec["search"]["chosen"] == {"optimizer.lr": 1e-2}
    with pytest.raises(UserError, match="tuned: every trial of its search failed"):
        run(recipe(search.replace(", 1.0e-2", "")), tmp_path / "all")
    assert not (tmp_path / "all/tuned").exists()


ADAPTIVE = (
    "search: {method: adaptive, trials: TRIALS, at_a_time: 2, space: "
    "{optimizer.lr: {loguniform: [1.0e-7, 1.0e-1]}, strategy.lambda: [1, 10]}}\n"
)


def proposed(target, trials, at_a_time, seed=0):
    """What a search for the highest of -|log10(lr) - target| proposes."""
    pytest.importorskip("optuna", reason="the extra ray is not installed")
    section = SearchSection(
        method="adaptive",
        space={"lr": {"loguniform": [1e-6, 1.0]}, "kind": ["a", "b"]},
        trials=trials,
        at_a_time=at_a_time,
        seed=seed,
    )
    searcher, found = Adaptive(section), []
    while asked := searcher.ask():
        assert len(asked) <= at_a_time
        for name, setting in asked.items():
            found.append(setting)
            searcher.tell(name, None if len(found) == 3 else -abs(math.log10(setting["lr"]) - target))
    return found


@pytest.mark.parametrize("target", [-5.0, -1.0])
def test_an_adaptive_search_goes_where_it_is_better(target):
    """Beside what it draws at first, at random: half of a range of six decades lies within 1.5 of a target."""
    found = proposed(target, trials=40, at_a_time=4)
    assert len(found) == 40
    assert all(1e-6 <= setting["lr"] <= 1 and setting["kind"] in "ab" for setting in found)
    distances = [abs(math.log10(setting["lr"]) - target) for setting in found]
    assert np.mean(distances[20:]) < 0.6 * np.mean(distances[:10])


def test_the_same_scores_bring_the_same_proposals():
    assert proposed(-3, 15, 2) == proposed(-3, 15, 2) != proposed(-3, 15, 2, seed=1)


def test_an_adaptive_search_is_carried_out_and_taken_up_again(recipe, tmp_path):
    """Two more trials are added to four that are there, and none is trained twice."""
    pytest.importorskip("optuna", reason="the extra ray is not installed")
    few, more = (
        recipe("matrix: {strategy: [naive, si]}\n" + ADAPTIVE.replace("TRIALS", str(trials)), "seeds=0")
        for trials in (4, 6)
    )
    assert [search.size for search in more.searches] == [6, 6]

    def made():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "search").glob("*/*/accuracy.parquet")}

    def told(name):
        return json.loads((tmp_path / f"{name}/seed-0/spec.json").read_text())["search"]

    run(few, tmp_path)
    first, before = made(), told("si")
    assert len(before["tried"]) == 4 and before["method"] == "adaptive"
    assert before["chosen"] == max(before["tried"], key=lambda one: one["score"])["setting"]
    assert set(before["chosen"]) == {"optimizer.lr", "strategy.lambda"} and set(told("naive")["chosen"]) == {
        "optimizer.lr"
    }
    for name in ("naive", "si"):
        shutil.rmtree(tmp_path / name)
    run(more, tmp_path)
    assert len(made()) == 12 and first.items() <= made().items()
    assert told("si")["tried"][:4] == before["tried"] and len(told("si")["tried"]) == 6


@pytest.mark.slow
def test_a_search_through_processes_chooses_the_same(recipe, tmp_path):
    run(recipe(), tmp_path / "local")
    run(recipe(), tmp_path / "processes", executor=Processes(2))
    one, other = (
        json.loads((tmp_path / name / "tuned/seed-0/spec.json").read_text())["search"]
        for name in ("local", "processes")
    )
    assert one == other
    assert read_status(tmp_path / "processes/tuned/seed-1").state == "done"


def test_a_share_of_a_search_is_refused(recipe, tmp_path):
    with pytest.raises(UserError, match="--only: a search needs all its trials"):
        run(recipe(), tmp_path / "runs", only=Share(1, 2))
    assert not (tmp_path / "runs").exists()


def test_the_recipe_of_the_docs_is_one(tmp_path):
    text = (Path(__file__).resolve().parents[1] / "docs/search.md").read_text()
    (tmp_path / "tuned.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    (search,) = load_recipe(str(tmp_path / "tuned.yaml")).searches
    assert len(search.trials) == 6 and search.trials[0].judged.experiment.stream.stop_after == 3
