"""The bench: fair turns, right arithmetic, and every side runs."""

import json
from dataclasses import replace

import pytest
import torch

import acn_cl.bench.report
import acn_cl.bench.run
import acn_cl.bench.sides
from acn_cl import bench
from acn_cl.bench.figures import CURVES
from acn_cl.bench.timing import Spread, alternate, ratios
from acn_cl.errors import UserError
from acn_cl.seeding import Seeds
from acn_cl.training.per_run import OneByOne
from acn_cl.training.plain_avalanche import PilImages, PlainAvalanche
from acn_cl.training.session import build_stream


def test_sides_take_turns_and_the_first_round_does_not_count():
    calls = []

    def side(name, seconds):
        def work():
            calls.append(name)
            return seconds * len(calls)

        return work

    times = alternate({"a": side("a", 1.0), "b": side("b", 10.0)}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert times == {"a": [3.0, 5.0], "b": [40.0, 60.0]}


def test_a_ratio_is_taken_round_by_round():
    """Both sides twice as slow in the second round: the ratio has no spread."""
    spread = ratios([6.0, 12.0, 6.0], [2.0, 4.0, 2.0])
    assert (spread.low, spread.median, spread.high) == (3.0, 3.0, 3.0)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)


def test_the_quick_bench_measures_everything_and_writes_it(tmp_path):
    said = []
    report = bench.bench(bench.QUICK, tmp_path / "bench", said.append)
    assert [(row["strategy"], row["depth"]) for row in report.comparison] == [
        (s, d) for s in ("naive", "si", "ewc") for d in (1, 2)
    ]
    assert report.curves.keys() == CURVES.keys()
    assert all(row["ratio"]["median"] > 0 for curve in report.curves.values() for row in curve)
    written = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert written["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    text = (tmp_path / "bench" / "bench.md").read_text()
    assert "| ewc | 2 |" in text
    assert "load at the start" in text
    assert len(said) == 6 + len(CURVES)


def test_what_could_not_be_compiled_is_said_beneath_the_table(tmp_path, monkeypatch):
    """Else the time of an eager step would stand there as a compiled one's."""

    def choose(device, precision, runs, note, often):
        note("computed eagerly")
        return OneByOne()

    monkeypatch.setattr(acn_cl.bench.sides, "choose_per_run", choose)
    monkeypatch.setattr(acn_cl.bench.run, "CURVES", {})
    bench.bench(replace(bench.QUICK, strategies=("si",), depths=(1,)), tmp_path)
    assert "- si, L = 1, ours, one run: computed eagerly" in (tmp_path / "bench.md").read_text()


def test_a_bench_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    measured = []

    def compare(plan, strategy, depth):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append((strategy, depth))
        return {"strategy": strategy, "depth": depth}

    monkeypatch.setattr(acn_cl.bench.run, "compare", compare)
    monkeypatch.setattr(acn_cl.bench.run, "CURVES", {})
    monkeypatch.setattr(acn_cl.bench.report, "markdown", lambda report: "")
    with pytest.raises(KeyboardInterrupt):
        bench.bench(bench.QUICK, tmp_path)
    first, measured[:] = list(measured), []
    told = []
    report = bench.bench(bench.QUICK, tmp_path, told.append)
    assert "4 of 6 figures are there already" in told[0]
    assert first + measured == [(s, d) for s in ("naive", "si", "ewc") for d in (1, 2)]
    assert [(row["strategy"], row["depth"]) for row in report.comparison] == first + measured
    measured.clear()
    bench.bench(replace(bench.QUICK, strategies=("naive",)), tmp_path)
    assert measured == [("naive", 1), ("naive", 2)]  # another plan begins anew


def test_plain_avalanche_learns_the_same_images():
    """Else its time would not be comparable: as many images, of the same classes, in the same order of tasks."""
    experiment = bench.QUICK.experiment(strategy="naive")
    plain = PlainAvalanche(experiment, 0, torch.device("cpu"))
    stream = build_stream(experiment, experiment.seeds_of(0))
    for theirs, ours in zip(plain._stream, stream.experiences, strict=True):
        assert len(theirs.dataset) == len(ours.train)
        assert theirs.task_label == ours.index
        image, label, _ = theirs.dataset[0]
        assert image.shape == (1, 8, 8)
        assert label in (0, 1)
    before = [p.detach().clone() for p in plain._strategy.model.parameters()]
    plain.learn(0)
    assert any(not torch.equal(a, b) for a, b in zip(before, plain._strategy.model.parameters(), strict=False))


def test_images_are_pil_in_the_data_sets_own_labels():
    stream = build_stream(bench.QUICK.experiment(), Seeds(0))
    images = PilImages([e.train for e in stream.experiences])
    picture, label = images[3]
    assert picture.size == (8, 8)
    assert label == stream.experiences[0].train.original_labels[3]


def test_plain_avalanche_says_what_it_is_set_up_for():
    with pytest.raises(UserError, match="naive, si, ewc, not l2"):
        PlainAvalanche(bench.QUICK.experiment(strategy="l2"), 0, torch.device("cpu"))


@pytest.mark.parametrize(("key", "value"), [("device", "banana"), ("precision", "fp8")])
def test_a_wrong_plan_is_one_line(key, value):
    with pytest.raises(UserError, match=f"^{key}: .*{value}"):
        replace(bench.QUICK, **{key: value})
