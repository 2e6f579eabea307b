"""Published numbers: the data files, what matches them, and the difference with its joint interval."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from acn_cl.errors import UserError
from acn_cl.recipe import load_recipe
from acn_cl.reports import make_report
from acn_cl.reports.published import Beside, beside_published, load_published, matches
from acn_cl.reports.results import Results
from acn_cl.runs.load import load_runs
from acn_cl.spec import flatten
from acn_cl.stats import Summary, summarise, unpaired

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

AS_IN_THE_PAPER = {
    "stream.name": "split-cifar100",
    "stream.experiences": 20,
    "epochs": 10,
    "backbone.wiring": "acn",
    "backbone.block": "mixer",
    "backbone.width": 128,
    "backbone.patch": 4,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The paper's naive AC-Mixer of five layers, four seeds, and one that differs in its depth."""
    folder = tmp_path_factory.mktemp("runs")
    for name, depth in (("five", 5), ("six", 6)):
        axes = {"backbone.name": "ac_mixer", "backbone.depth": depth}
        for seed in range(4):
            synthetic.write_run(folder, name, seed, axes=axes, settings=AS_IN_THE_PAPER, depth=depth)
    return folder


def test_the_paper_has_twelve_cells_of_two_measures():
    found = [number for number in load_published() if "2506.09714" in number.source]
    assert len(found) == 24
    by_cell = {
        (n.settings["strategy.name"], n.settings["backbone.wiring"], n.settings["backbone.depth"], n.measure.symbol): n
        for n in found
    }
    assert (by_cell["si", "residual", 15, "F"].mean, by_cell["si", "residual", 15, "F"].std) == (50.0, 2.1)
    assert by_cell["naive", "acn", 10, "ACC"].mean == 32.94
    assert {n.dialect for n in found if n.measure.symbol == "F"} == {"from-learned"}


@pytest.mark.parametrize(
    ("recipe", "cells"), [("split-cifar100", 4), ("acn-table", 12), ("acn-table-ewc", 0), ("acn-setups", 32)]
)
def test_the_recipes_of_the_paper_have_the_published_settings(recipe, cells):
    numbers = list(load_published())
    planned = load_recipe(recipe).planned
    matched = [[n for n in numbers if matches(flatten(p.experiment.as_dict()), n)] for p in planned]
    assert sum(map(bool, matched)) == cells
    for one, found in zip(planned, matched, strict=True):
        assert len(found) in (0, 2)  # accuracy and forgetting of one cell
        assert all(n.settings["backbone.wiring"] == one.experiment.backbone.model_extra["wiring"] for n in found)


def test_what_matches_is_shown_with_welchs_interval(store):
    runs = load_runs(store)
    found = beside_published(runs, Results(runs))
    assert [(one.ours.experiment, one.theirs.measure.symbol) for one in found] == [("five", "ACC"), ("five", "F")]
    for one, (mean, std) in zip(found, ((32.97, 2.4), (46.55, 2.2)), strict=True):
        assert (one.theirs.mean, one.theirs.std, one.theirs.n, one.theirs.assumed) == (mean, std, 0, 3)
        fake = np.array([-1.0, 0.0, 1.0]) * std + mean  # three values of that mean and standard deviation
        interval = scipy_stats.ttest_ind(one.ours.values, fake, equal_var=False).confidence_interval(0.95)
        assert (one.difference.low, one.difference.high) == pytest.approx(tuple(interval))
        assert one.difference.mean == pytest.approx(one.ours.summary.mean - mean)


def test_the_report_shows_them(store, tmp_path):
    text = make_report([store], tmp_path).read_text()
    assert "Beside published numbers" in text
    assert ">33.0 ± 2.4</span>" in text  # as every other number, to one decimal
    assert "as printed: 32.97 ± 2.4" in text
    table = pd.read_csv(tmp_path / "published.csv")
    assert list(table["published_mean"]) == [32.97, 46.55]
    assert "2506.09714" in (tmp_path / "tables" / "published.tex").read_text()


def test_without_a_match_there_is_no_such_section(tmp_path):
    synthetic.write_run(tmp_path / "runs", "a", 0)
    assert "Beside published" not in make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert not (tmp_path / "out" / "published.csv").exists()


def test_agreement_is_zero_within_the_interval():
    theirs = Summary(5, 33.0, 2.0, np.nan, np.nan)
    for ours, agrees in (([33.5, 32.0, 34.0], True), ([50.0, 51.0, 52.0], False), ([33.0], None)):
        assert Beside(None, None, unpaired(summarise(ours), theirs)).difference.agrees is agrees


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: s\nplace: p\n", "'cells' is missing"),
        ("source: s\nplace: p\ncells: []\nseed: 3\n", "'seed' is not a key"),
        ("source: s\nplace: p\ncells: [3]\n", r"cells\[0\]: needs settings"),
        ("source: s\nplace: p\ncells: [{settings: {}, accuracy: 3}]\n", "there is no measure 'accuracy'"),
        ("source: s\nplace: p\ncells: [{settings: {}, average_accuracy: [3]}]\n", "is a mean, or"),
        ("source: s\nplace: p\ncells: [{settings: {}, average_accuracy: high}]\n", "is a mean, or"),
    ],
)
def test_a_damaged_file_is_said_in_one_line(tmp_path, text, says):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        list(load_published(tmp_path))
