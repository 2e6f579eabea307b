"""The report's numbers, words and files. How it looks in a browser: test_report_page.py."""

import json
import re
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from acn_cl import metrics, stats
from acn_cl.errors import UserError
from acn_cl.reports import compare, curves, labels, latex, make_report, said, sensitivity, words
from acn_cl.reports.comparisons import Comparison, compare_all, one_factor_pairs
from acn_cl.reports.confusion import confusions
from acn_cl.reports.figures import GROUND, by_epoch, contrasting, new, save, slug
from acn_cl.reports.measures import MEASURES
from acn_cl.reports.noise import under_noise
from acn_cl.reports.plots import plots
from acn_cl.reports.results import Results
from acn_cl.reports.svg import inline
from acn_cl.runs.files import write_rows
from acn_cl.runs.load import load_runs
from acn_cl.runs.schema import LAYERS

BY_KEY = {measure.key: measure for measure in MEASURES}
synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = synthetic.write_grid(tmp_path_factory.mktemp("runs"))
    axes = {"backbone.name": "ac_mixer", "strategy.name": "si"}
    synthetic.write_run(folder, "ac_mixer-si", 3, axes=axes, state="failed", error="the loss is NaN")
    synthetic.write_run(folder, "ac_mixer-si", 4, axes=axes, state="running")
    synthetic.write_run(folder, "ac_mixer-si", 5, axes=axes)
    (folder / "ac_mixer-si" / "seed-5" / "accuracy.parquet").write_bytes(b"not parquet")
    return folder


@pytest.fixture(scope="module")
def runs(store):
    return load_runs(store)


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    return make_report([store], tmp_path_factory.mktemp("out") / "report")


def test_results_are_the_measures_of_the_stored_matrices(runs):
    results = Results(runs)
    R = np.stack([runs.matrix("res_mixer-si", seed) for seed in (0, 1, 2)])
    for dialect in metrics.DIALECTS:
        found = results.of("res_mixer-si", "average_forgetting", dialect)
        np.testing.assert_allclose(found.values, 100 * metrics.average_forgetting(R, dialect))
        assert found.summary == stats.summarise(found.values)
    found = results.of("res_mixer-si", "average_accuracy")
    np.testing.assert_allclose(found.values, 100 * metrics.average_accuracy(R))
    assert results.of("res_mixer-si", "training_time").values == pytest.approx([6.0, 6.4, 6.8])
    assert results.of("res_mixer-si", "parameters").summary.mean == 16_000
    assert results.of("res_mixer-si", "effective_depth").summary.mean == 3
    assert results.of("ac_mixer-si", "effective_depth").summary.mean < 3


def test_what_is_undefined_has_a_reason_and_no_number(runs):
    results = Results(runs)
    found = results.of("ac_mixer-si", "forward_transfer")
    assert np.isnan(found.summary.mean)
    assert "not defined in task-incremental" in found.undefined
    not_recorded = {"peak_memory", "flops", "flops_kept", "accuracy_per_gflop", "accuracy_per_gflop_kept"}
    within = {"stability_gap", "windowed_plasticity", "windowed_forgetting"}
    others = {"forward_transfer", "intransigence", "accuracy_under_noise", "recency_bias"}
    assert set(results.undefined) == not_recorded | within | others


def test_forward_transfer_where_one_head_serves_all(tmp_path):
    cube = np.full((2, 2, 2), 0.5)
    rows = synthetic.accuracy_rows(cube) + synthetic.accuracy_rows(np.full((1, 2, 2), 0.1), trained=[-1])
    synthetic.write_run(tmp_path, "a", 0, rows=rows, scenario="domain-incremental", experiences=2)
    assert Results(load_runs(tmp_path)).of("a", "forward_transfer").values == pytest.approx([40.0])


def test_unfinished_and_unreadable_runs_are_in_no_mean_and_in_the_report(runs, report):
    assert Results(runs).of("ac_mixer-si", "average_accuracy").seeds == (0, 1, 2)
    for text in (report.read_text(), report.with_name("results.md").read_text().replace("\\", "")):
        assert "failed after 4 of 4 experiences: the loss is NaN" in text
        assert "died after 4 of 4 experiences" in text
        assert "seed-5/accuracy.parquet: cannot be read as parquet" in text


def test_csv_markdown_and_html_give_the_same_numbers(report):
    table = pd.read_csv(report.with_name("results.csv"), keep_default_na=False, na_values=[""])
    seeds = pd.read_csv(report.with_name("seeds.csv"))
    assert len(table) == 4 * (len(BY_KEY) + 2)  # forgetting in three dialects
    html, markdown = report.read_text(), report.with_name("results.md").read_text()
    for row in table[
        table["measure"].isin(["average_accuracy", "average_forgetting", "learning_accuracy"])
    ].itertuples():
        text = f"{row.mean:.1f} ± {row.std:.1f}"
        assert f">{text}</span>" in html
        assert f" {text} |" in markdown
    known = table.dropna(subset=["mean"]).fillna({"dialect": ""})
    means = seeds.fillna({"dialect": ""}).groupby(["experiment", "measure", "dialect"])["value"].mean()
    for row in known.itertuples():
        assert means[row.experiment, row.measure, row.dialect] == pytest.approx(row.mean)


def test_the_order_of_seeds_and_folders_changes_nothing(store, tmp_path):
    split = tmp_path / "split"
    for seed in (2, 0, 1):
        synthetic.write_grid(split / str(seed), seeds=(seed,))
    whole, parts = load_runs(store), load_runs(*(split / str(seed) for seed in (1, 2, 0)))
    pd.testing.assert_frame_equal(Results(whole).frame(), Results(parts).frame())


def test_pairs_differ_in_one_setting_and_share_their_stream(runs):
    assert set(one_factor_pairs(runs)) == {
        ("backbone.name", "ac_mixer-naive", "res_mixer-naive"),
        ("backbone.name", "ac_mixer-si", "res_mixer-si"),
        ("strategy.name", "ac_mixer-naive", "ac_mixer-si"),
        ("strategy.name", "res_mixer-naive", "res_mixer-si"),
    }


def test_pairs_without_axes_are_found_by_their_settings(tmp_path):
    synthetic.write_run(tmp_path, "one", 0, settings={"optimizer.lr": 0.1})
    synthetic.write_run(tmp_path, "two", 0, settings={"optimizer.lr": 0.01})
    synthetic.write_run(tmp_path, "both", 0, settings={"optimizer.lr": 0.01, "epochs": 9})
    synthetic.write_run(tmp_path, "else", 0, settings={"optimizer.lr": 0.1, "stream.name": "split-mnist"})
    pairs = set(one_factor_pairs(load_runs(tmp_path)))
    assert pairs == {("optimizer.lr", "one", "two"), ("epochs", "both", "two")}


def test_comparisons_are_paired_by_seed_and_corrected_by_family(tmp_path):
    synthetic.write_grid(tmp_path, seeds=(0, 1, 2))
    axes = {"backbone.name": "ac_mixer", "strategy.name": "naive"}
    synthetic.write_run(tmp_path, "ac_mixer-naive", 9, axes=axes, forgets=0.9)
    runs = load_runs(tmp_path)
    results = Results(runs)
    found = [
        c for c in compare_all(runs, results) if c.measure.key == "average_forgetting" and c.dialect == "from-learned"
    ]
    assert {c.seeds for c in found} == {(0, 1, 2)}
    family = [c for c in found if c.factor == "backbone.name"]
    raw = []
    for c in family:
        a, b = (results.of(name, "average_forgetting", "from-learned").values[:3] for name in (c.a, c.b))
        assert c.paired == stats.compare(a, b)
        raw.append(c.paired.p)
    assert [c.p for c in family] == pytest.approx(stats.holm(raw))
    assert {c.family for c in family} == {2}


def comparison(a, b):
    paired = stats.compare(a, b) if len(a) else None
    p = paired.p if paired else np.nan
    return Comparison(BY_KEY["average_forgetting"], "from-learned", "f", "a", "b", (), paired, p, 1)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (
            [30, 31, 29, 30],
            [42, 43, 42, 41],
            r"^A forgets 12\.0 points less than B \(95 % interval 10\.7 to 13\.3, p < 0",
        ),
        (
            [42, 43, 42, 41],
            [30, 31, 29, 30],
            r"^A forgets 12\.0 points more than B \(95 % interval 10\.7 to 13\.3, p < 0",
        ),
        (
            [30, 45, 20],
            [31, 30, 30],
            r"^Undetermined: here A forgets 1\.3 points more .* −30\.1 to 32\.8, p = 0\.87, n = 3",
        ),
        (
            [30],
            [40],
            r"^Undetermined: on the one common seed A forgets 10\.0 points less than B; one seed says nothing",
        ),
        ([30, 31], [30, 31], r"^A and B give the same forgetting on every one of 2 seeds\.$"),
        ([30, 31], [20, 21], r"^Undetermined: A forgets 10\.0 points more than B on each of 2 seeds"),
        ([], [], r"^Undetermined: A and B have no finished seed in common\.$"),
    ],
)
def test_verdicts_say_what_the_test_says(a, b, says):
    assert re.search(says, words.verdict(comparison(np.array(a, float), np.array(b, float)), "A", "B"))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "%", "12.3"),
        (-0.04, "%", "0.0"),
        (-1.26, "%", "−1.3"),
        (np.nan, "%", "–"),
        (107872, "", "107\u202f872"),
    ],
)
def test_numbers(value, unit, text):
    assert words.number(value, unit) == text


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.0312, "0.031"), (0.52, "0.52"), (np.nan, "–")])
def test_p_values(p, text):
    assert words.p_value(p) == text


def test_labels_are_the_axes_or_else_the_ids(tmp_path):
    axes = {"backbone.name": "ac_mixer", "backbone.depth": 5, "strategy": {"name": "si", "lambda": 2.0}}
    synthetic.write_run(tmp_path, "x", 0)
    assert labels.labels(load_runs(tmp_path)) == {"x": "x"}
    run = SimpleNamespace(spec={"axes": axes})
    assert list(labels.axes(run).values()) == ["ac_mixer", "depth 5", "si lambda 2"]


def test_a_panel_holds_eight_lines_of_one_stream(tmp_path):
    for i in range(9):
        synthetic.write_run(tmp_path, f"e{i}", 0, settings={"epochs": i})
    synthetic.write_run(tmp_path, "other", 0, settings={"stream.name": "split-mnist"})
    panels = labels.panels(load_runs(tmp_path))
    assert [len(members) for members in panels.values()] == [8, 1, 1]
    looks = labels.looks(load_runs(tmp_path))
    assert len({(look.colour, look.dash) for look in looks.values()}) == len(looks)


def test_nine_of_two_axes_are_divided_so_that_the_first_axis_stays_together(tmp_path):
    for strategy in ("s1", "s2", "s3", "s4", "s5"):
        for backbone in ("a", "b"):
            axes = {"backbone.name": backbone, "strategy.name": strategy}
            synthetic.write_run(tmp_path, f"{backbone}-{strategy}", 0, axes=axes)
    runs = load_runs(tmp_path)
    first, second = labels.panels(runs).values()
    assert first == ["a-s1", "a-s2", "a-s3", "a-s4", "b-s1", "b-s2", "b-s3", "b-s4"]
    assert second == ["a-s5", "b-s5"]
    looks = labels.looks(runs)
    for members in (first, second):
        assert len({(looks[m].colour, looks[m].dash) for m in members}) == len(members)
    assert len({looks[m].colour for m in first}) == 2  # the backbone's


def test_lines_of_one_panel_never_look_alike(tmp_path):
    for i in range(8):
        synthetic.write_run(tmp_path, f"e{i}", 0, axes={"backbone.name": "a", "optimizer.lr": 10.0**-i})
    looks = labels.looks(load_runs(tmp_path))
    assert len({(look.colour, look.dash) for look in looks.values()}) == 8


def test_figures_are_files_without_dates_and_the_same_every_time(store, report, tmp_path):
    again = make_report([store], tmp_path)
    names = {path.name for path in report.with_name("figures").iterdir()}
    assert {"stability-plasticity.svg", "accuracy-by-depth.svg", "matrix-ac_mixer-si.svg"} <= names
    assert {Path(name).suffix for name in names} == {".svg", ".pdf", ".png"}
    for name in names:
        file = report.with_name("figures") / name
        assert file.read_bytes() == (again.with_name("figures") / name).read_bytes()
        if name.endswith(".svg"):
            assert "dc:date" not in file.read_text()
            ElementTree.fromstring(file.read_text())
    assert again.read_text().replace(str(tmp_path), "") == report.read_text().replace(str(report.parent), "")


def test_pdf_figures_have_no_type_3_fonts(report):
    fonts = re.findall(
        rb"/Subtype /(Type\w+|TrueType)", report.with_name("figures").joinpath("accuracy-so-far.pdf").read_bytes()
    )
    assert fonts and b"Type3" not in fonts


def test_inline_figures_share_no_ids():
    svg = '<?xml version="1.0"?><svg width="9pt" height="9pt"><path id="p" fill="#1b1f24"/><use href="#p"/></svg>'
    first, second = inline(svg, "f0", 'a "b"'), inline(svg, "f1", "")
    assert 'id="f0-p"' in first
    assert 'href="#f0-p"' in first
    assert 'aria-label="a &quot;b&quot;"' in first
    assert "currentColor" in first
    assert "9pt" not in first
    assert set(re.findall(r'id="[^"]*"', first)).isdisjoint(re.findall(r'id="[^"]*"', second))


def test_a_matrix_on_the_page_has_every_cell_of_its_file(tmp_path):
    """Each rectangle and its colour, found in the file's own way of writing and in the page's shorter one."""
    values = np.random.default_rng(0).lognormal(size=(17, 60))
    figure, ax = new()
    by_epoch(ax, values, 10)
    whole = save(figure, tmp_path, "matrix", ["svg"])
    number = r"(-?\d+(?:\.\d{1,2})?)"
    fine = rf"{number}\d*"
    corners = rf'<path d="M {fine} {fine}\s*L {fine} \2\d*\s*L \3\d* {fine}\s*L \1\d* \4\d*[^"]*"[^>]*fill: (#\w+)'
    there = [(*map(float, cell), look) for *cell, look in re.findall(corners, whole)]
    page = inline(whole, "f0", "")
    here = [
        (*map(float, cell), look)
        for shapes, look in re.findall(r'<path d="((?:M[^"MLC]*z)+)"[^>]*fill: (#\w+)', page)
        for cell in re.findall(rf"M{number} {number}H{number}V{number}H\1z", shapes)
    ]
    cells = [cell for cell in there if cell[-1] != GROUND]  # the ground follows the page's, light or dark
    assert len(cells) > 17 * 60
    assert sorted(cells) == sorted(here)
    assert len(page) < len(whole) / 2


def test_every_id_of_the_page_is_unique_and_every_reference_has_one(report):
    html = report.read_text()
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_a_report_says_nothing_of_the_folders_above(tmp_path, monkeypatch):
    synthetic.write_run(tmp_path / "runs", "one", 0)
    synthetic.write_run(tmp_path / "runs", "one", 1, state="running")
    monkeypatch.chdir(tmp_path)
    html = make_report([Path("runs")], Path("report")).read_text()
    assert {str(Path("runs", "one", f"seed-{seed}")) for seed in (0, 1)} <= set(
        re.findall(r'class="file">([^<]*)<', html)
    )
    assert str(tmp_path) not in html


def test_a_second_report_removes_what_the_first_made_and_nothing_else(store, tmp_path):
    make_report([store], tmp_path)
    assert (tmp_path / "figures" / "matrix-res_mixer-si.pdf").exists()
    (tmp_path / "figures" / "mine.svg").write_text("<svg/>")
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("")
    with (tmp_path / "files.txt").open("a") as own:
        own.write("../outside.txt\n")
    make_report([store / "ac_mixer-si"], tmp_path)
    assert not (tmp_path / "figures" / "matrix-res_mixer-si.pdf").exists()
    assert (tmp_path / "figures" / "mine.svg").exists()
    assert outside.exists()
    listed = (tmp_path / "files.txt").read_text().splitlines()
    assert {"report.html", "results.csv", "tables/summary-from-learned.tex"} <= set(listed)
    assert all((tmp_path / name).exists() for name in listed)


def test_one_seed_one_experiment_and_one_experience_make_a_report(tmp_path):
    synthetic.write_run(tmp_path / "runs", "only", 0, experiences=1)
    text = make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert "Nothing to compare" in text
    assert "needs at least two experiences" in text


def test_no_finished_run_makes_a_report_that_says_so(tmp_path):
    synthetic.write_run(tmp_path / "runs", "a", 0, state="failed", error="out of memory")
    text = make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert "0 finished runs" in text
    assert "out of memory" in text


def test_an_output_that_cannot_be_written_is_the_users_error(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make_report([store], tmp_path / "file")


def test_names_are_shown_as_text(tmp_path):
    evil = '<script>alert("1")</script> $x$ & _b_ \\input{c} | {{ 7*7 }}'
    axes = {"strategy.name": evil}
    synthetic.write_run(tmp_path / "runs", "first", 0, axes=axes, state="failed", error=evil)
    synthetic.write_run(tmp_path / "runs", "first", 1, axes=axes)
    synthetic.write_run(tmp_path / "runs", "second", 1, axes={"strategy.name": "_plain"})
    report = make_report([tmp_path / "runs"], tmp_path / "out")
    html = report.read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "{{ 7*7 }}" in html
    assert "<script>alert" not in report.with_name("results.md").read_text().replace("\\<script", "")
    figure = ElementTree.fromstring(report.with_name("figures").joinpath("accuracy-so-far.svg").read_text())
    texts = ["".join(node.itertext()) for node in figure.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.endswith("…") and evil.startswith(text[:-1]) for text in texts)
    assert "\u00a0_plain" in texts


NOISE = ("gaussian-0.1", "salt-pepper-0.05")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Two experiments; one was tested under noise, and answers 10 and 20 points less there."""
    folder = tmp_path_factory.mktemp("noisy")
    for seed in (0, 1, 2):
        rows = synthetic.accuracy_rows(synthetic.accuracy_by_depth(seed))
        last = [row for row in rows if row["trained"] == 3]
        rows += [
            {**row, "condition": name, "accuracy": row["accuracy"] - lost}
            for name, lost in zip(NOISE, (0.1, 0.2), strict=True)
            for row in last
        ]
        synthetic.write_run(folder, "tested", seed, rows=rows)
        synthetic.write_run(folder, "not-tested", seed)
    return load_runs(folder)


def test_noise_has_its_own_table_and_stays_out_of_the_measures(noisy):
    found = under_noise(noisy)
    assert list(found["tested"]) == ["clean", *NOISE]
    clean = Results(noisy).of("tested", "average_accuracy").summary
    assert found["tested"]["clean"] == clean
    for name, lost in zip(NOISE, (10, 20), strict=True):
        assert found["tested"][name].mean == pytest.approx(clean.mean - lost)
        assert found["tested"][name].std == pytest.approx(clean.std)
        assert np.isnan(found["not-tested"][name].mean)


def test_noise_is_in_the_page_the_csv_and_the_tables(noisy, tmp_path):
    report = make_report([noisy.runs[0].path.parents[1]], tmp_path)
    table = pd.read_csv(tmp_path / "noise.csv").set_index(["experiment", "condition"])
    for name in NOISE:
        text = words.mean_std(under_noise(noisy)["tested"][name])
        assert f">{text}</span>" in report.read_text()
        assert latex.escape(text) in (tmp_path / "tables" / "noise.tex").read_text()
        assert table.loc[("tested", name), "mean"] == pytest.approx(under_noise(noisy)["tested"][name].mean)


def test_without_noise_there_is_no_such_section(runs, report):
    assert under_noise(runs) == {}
    assert "Under noise" not in report.read_text()
    assert not report.with_name("noise.csv").exists()


def test_gradients_and_importance_by_layer(tmp_path):
    def row(trained, epoch, layer, quantity, value):
        return {"trained": trained, "epoch": epoch, "layer": layer, "quantity": quantity, "value": value}

    layers = [
        row(t, e, k, "gradient_norm", (t + 1) * (e + 1) * 10.0**-k) for t in (0, 1) for e in (0, 1) for k in range(3)
    ]
    layers += [row(t, -1, k, "importance", (t + 1.0) * k) for t in (0, 1) for k in range(3)]
    layers += [row(t, -1, 0, "importance_smallest", -1.0) for t in (0, 1)]
    path = synthetic.write_run(tmp_path, "a", 0, experiences=2, depth=1)
    write_rows(path / "layers.parquet", LAYERS, layers)
    runs = load_runs(tmp_path)
    gradient = curves.gradient_by_layer(runs, ["a"])["a"]
    np.testing.assert_allclose(gradient.seeds, [[2.25, 0.225, 0.0225]])  # mean of 1, 2, 2, 4
    np.testing.assert_allclose(curves.importance_by_layer(runs, ["a"])["a"].seeds, [[0, 100 / 3, 200 / 3]])


def test_quantities_at_the_end_of_experiences_are_drawn_where_recorded(tmp_path):
    def row(trained, layer, quantity, value):
        return {"trained": trained, "epoch": -1, "layer": layer, "quantity": quantity, "value": value}

    rows = [row(t, k, "direct_gradient_share", 0.8 - 0.1 * k - 0.2 * t) for t in (0, 1) for k in (1, 2)]
    synthetic.write_run(tmp_path, "a", 0, experiences=2, depth=2, layers=rows)
    synthetic.write_run(tmp_path, "b", 0, experiences=2, depth=2)
    runs = load_runs(tmp_path)
    found = curves.at_end_of_experiences(runs, ["a", "b"], "direct_gradient_share")
    assert list(found) == ["a"]
    np.testing.assert_allclose(found["a"].seeds, [[np.nan, 0.6, 0.5, np.nan]])  # not at the embedding, nor the head
    drawn = {plot.file for plot in plots(runs, Results(runs))}
    assert "direct-gradient-share" in drawn and "cka" not in drawn


def test_drift_is_drawn_at_the_end_and_along_the_stream(tmp_path):
    rows = [
        {"trained": t, "epoch": -1, "layer": k, "quantity": "cka", "value": 1 - 0.1 * t - 0.01 * k}
        for t in (1, 2)
        for k in range(3)
    ]
    synthetic.write_run(tmp_path, "a", 0, experiences=3, depth=2, layers=rows)
    runs = load_runs(tmp_path)
    at_the_end = curves.at_the_end(runs, ["a"], "cka")["a"]
    np.testing.assert_allclose(at_the_end.seeds, [[0.8, 0.79, 0.78]])
    course = curves.over_the_stream(runs, ["a"], "cka")["a"]
    assert course.x.tolist() == [2, 3]
    np.testing.assert_allclose(course.seeds, [[0.88, 0.78]])
    assert {"cka", "cka-over-the-stream"} <= {plot.file for plot in plots(runs, Results(runs))}


def test_gradients_by_epoch_are_means_over_seeds(tmp_path):
    for seed in (0, 1):
        synthetic.write_run(tmp_path, "a", seed, experiences=3, depth=1)
    runs = load_runs(tmp_path)
    values, epochs = curves.gradient_by_epoch(runs.finished("a"))
    assert (values.shape, epochs) == ((3, 6), 2)
    rows = runs.layers[(runs.layers["trained"] == 2) & (runs.layers["epoch"] == 1) & (runs.layers["layer"] == 0)]
    assert values[0, 5] == pytest.approx(rows["value"].mean())
    with pytest.raises(ValueError, match="not recorded"):
        curves.gradient_by_epoch(list(load_runs(_imported(tmp_path)).runs))


def _imported(folder):
    (folder / "theirs.csv").write_text("0.9,\n0.5,0.8\n")
    return folder / "theirs.csv"


def by_hand(tmp_path, **options):
    """Two experiences, three depths, 100 images each: k* is 1 after the first; of the two together it is 2."""
    cube = np.full((2, 2, 3), np.nan)
    cube[0, 0] = [0.50, 0.90, 0.90]
    cube[1, 0] = [0.50, 0.60, 0.70]
    cube[1, 1] = [0.80, 0.80, 0.80]
    rows = synthetic.accuracy_rows(cube)
    synthetic.write_run(tmp_path, "a", 0, rows=rows, experiences=2, depth=2, **options)
    return load_runs(tmp_path)


def test_effective_depth_over_the_stream_by_hand(tmp_path):
    runs = by_hand(tmp_path)
    np.testing.assert_array_equal(curves.depth_so_far(runs, ["a"])["a"].seeds, [[1, 2]])
    np.testing.assert_array_equal(curves.depth_when_learned(runs, ["a"])["a"].seeds, [[1, 0]])
    np.testing.assert_array_equal(curves.depth_at_end(runs, ["a"])["a"].seeds, [[2, 0]])
    assert Results(runs).of("a", "effective_depth_drift").values == pytest.approx([1])


def test_cost_by_hand(tmp_path):
    runs = by_hand(tmp_path, extra={"peak_memory": 3 * 2**20, "flops_by_depth": [10**6, 3 * 10**6, 4 * 10**6]})
    results = Results(runs)
    found = {measure.key: results.of("a", measure.key).summary.mean for measure in MEASURES if measure.cost}
    assert found == pytest.approx(
        {
            "training_time": 3.0,
            "evaluation_time": 0.5,
            "saving_time": 0.1,
            "training_speed": 400 / 3,
            "peak_memory": 3.0,
            "parameters": 14_000,
            "flops": 4.0,
            "flops_kept": 100.0,  # k* = 2 of 2
            "accuracy_per_gflop": 75 / 0.004,
            "accuracy_per_gflop_kept": 75 / 0.004,
        }
    )
    np.testing.assert_allclose(curves.accuracy_by_flops(runs, ["a"])["a"].x, [1, 3, 4])


@pytest.mark.parametrize("wrong", [[1, 2], [1, 2, -3], ["1", "2", "3"]])
def test_operations_that_make_no_sense_are_not_used(tmp_path, wrong):
    runs = by_hand(tmp_path, extra={"flops_by_depth": wrong})
    assert "not 3 positive numbers" in Results(runs).of("a", "flops").undefined


def test_what_was_not_recorded_is_not_mentioned(report):
    text = report.read_text()
    for absent in ("peak memory was not", "operations by depth were not", "Direct", "CKA"):
        assert absent not in text


def test_intransigence_is_against_the_joint_run_of_the_same_seed(tmp_path):
    cubes = {}
    for name, strategy, forgets in (("n", "naive", 0.4), ("j", "joint", 0.1)):
        for seed in (0, 1, *([2] if name == "n" else [])):
            cubes[name, seed] = synthetic.accuracy_by_depth(seed, forgets=forgets)[..., -1]
            settings = {"strategy.name": strategy}
            synthetic.write_run(tmp_path, name, seed, settings=settings, forgets=forgets)
    runs = load_runs(tmp_path)
    assert "no finished run of strategy joint" in Results(runs).of("n", "intransigence").undefined  # seed 2 has none
    shutil.rmtree(tmp_path / "n" / "seed-2")
    found = Results(load_runs(tmp_path)).of("n", "intransigence")
    expected = [100 * np.mean([cubes["j", s][k, k] - cubes["n", s][k, k] for k in range(4)]) for s in (0, 1)]
    assert found.values == pytest.approx(expected)
    assert found.checksums != tuple(run.checksum for run in runs.finished("n"))[:2]
    assert Results(runs).of("j", "intransigence").undefined


def test_a_joint_run_of_other_settings_is_no_reference(tmp_path):
    synthetic.write_run(tmp_path, "n", 0)
    synthetic.write_run(tmp_path, "j", 0, settings={"strategy.name": "joint", "epochs": 7})
    assert Results(load_runs(tmp_path)).of("n", "intransigence").undefined


def test_confusion_and_recency_bias_by_hand(tmp_path):
    counts = [np.array([[[9, 0], [0, 0]], [[3, 1], [0, 4]]]), np.array([[[9, 0], [0, 0]], [[2, 2], [1, 3]]])]
    for seed, answers in enumerate(counts):
        synthetic.write_run(
            tmp_path,
            "a",
            seed,
            experiences=2,
            scenario="class-incremental",
            answers=answers,
            axes={"backbone.name": "a"},
        )
    synthetic.write_run(tmp_path, "older", 0, experiences=2, scenario="class-incremental", axes={"backbone.name": "b"})
    runs = load_runs(tmp_path)
    found = confusions(runs)
    assert list(found) == ["a"]
    np.testing.assert_allclose(found["a"].mean, [[(75 + 50) / 2, (25 + 50) / 2], [25 / 2, (100 + 75) / 2]])
    np.testing.assert_allclose(found["a"].std, np.sqrt(25**2 / 2))
    results = Results(runs)
    assert results.of("a", "recency_bias").values == pytest.approx([100 * (1.25 / 2 - 0.5), 100 * (1.25 / 2 - 0.5)])
    assert "class-incremental" in results.of("older", "recency_bias").undefined
    np.testing.assert_allclose(curves.recency_bias(runs, ["a", "older"])["a"].seeds, [[12.5], [12.5]])
    drawn = {plot.file for plot in plots(runs, results)}
    assert {"confusion-a", "recency-bias"} <= drawn and "confusion-older" not in drawn


def test_confusion_is_in_the_page_and_the_csv(tmp_path):
    for seed in range(3):
        synthetic.write_run(tmp_path / "runs", "a", seed, scenario="class-incremental", answers=synthetic.answers(seed))
    page = make_report([tmp_path / "runs"], tmp_path / "out")
    counts = np.stack([synthetic.answers(seed)[3] for seed in range(3)])
    mean, std = 100 * counts.mean(0) / synthetic.SAMPLES, 100 * counts.std(0, ddof=1) / synthetic.SAMPLES
    assert f'title="of 1, taken for 4: {mean[0, 3]:.1f} ± {std[0, 3]:.1f} %"' in page.read_text()
    written = pd.read_csv(page.with_name("confusion.csv")).pivot(index="tested", columns="answered", values="mean")
    np.testing.assert_allclose(written, mean)
    assert "Not shown: these runs did not record" not in page.read_text()


def on_images(checksum):
    return {"extra": {"data_checksum": checksum * 32}}


def test_a_comparison_of_runs_on_other_images_says_so(tmp_path):
    for seed in (0, 1, 2):
        synthetic.write_run(tmp_path, "a", seed, axes={"backbone.name": "a"}, **on_images("ab"))
        synthetic.write_run(tmp_path, "b", seed, axes={"backbone.name": "b"}, forgets=0.5, **on_images("cd"))
        synthetic.write_run(tmp_path, "c", seed, axes={"backbone.name": "c"}, forgets=0.5, **on_images("ab"))
        synthetic.write_run(tmp_path, "older", seed, axes={"backbone.name": "d"})
    runs = load_runs(tmp_path)
    found = {(c.a, c.b): words.verdict(c, c.a, c.b) for c in compare_all(runs, Results(runs))}
    warned = {pair for pair, verdict in found.items() if "Not on the same images" in verdict}
    assert warned == {("a", "b"), ("b", "c")}
    assert "Not the same images" not in make_report([tmp_path], tmp_path / "out").read_text(), "each has its own"


def test_seeds_on_other_images_are_named(tmp_path):
    for seed, checksum in enumerate(("ab", "cd", "ab")):
        synthetic.write_run(tmp_path / "runs", "a", seed, **on_images(checksum))
    text = make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert "<code>abababababab</code> under seeds 0, 2; <code>cdcdcdcdcdcd</code> under seed 1" in text


def test_a_class_incremental_report_of_older_runs_says_what_is_not_stored(tmp_path):
    synthetic.write_run(tmp_path / "runs", "a", 0, scenario="class-incremental")
    text = make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert "Not shown: these runs did not record" in text
    R = synthetic.accuracy_by_depth(0)[..., -1]
    found = Results(load_runs(tmp_path / "runs")).of("a", "recency_gap").values
    assert found == pytest.approx([100 * (R[3, 3] - R[3, :3].mean())])


def test_accuracy_under_noise_is_a_measure(noisy):
    results = Results(noisy)
    found = results.of("tested", "accuracy_under_noise").values
    np.testing.assert_allclose(found, results.of("tested", "average_accuracy").values - 15)
    assert results.of("not-tested", "accuracy_under_noise").undefined == "not tested under noise"


def test_bootstrap_intervals_from_enough_seeds(tmp_path):
    for seed in range(stats.BOOTSTRAP_FROM):
        synthetic.write_run(tmp_path / "runs", "a", seed, experiences=2, depth=1)
    result = Results(load_runs(tmp_path / "runs")).of("a", "average_accuracy")
    assert result.bootstrap == stats.bootstrap_interval(result.values)
    low, high = result.bootstrap
    text = make_report([tmp_path / "runs"], tmp_path / "out").read_text()
    assert f"bootstrap interval {words.number(low)} to {words.number(high)}" in text


def test_importance_has_shares_only_where_it_is_a_mass(tmp_path):
    path = synthetic.write_run(tmp_path, "a", 0, experiences=2, depth=1)
    for values in ([0.0, 0.0], [1.0, -0.1]):
        rows = [
            {"trained": 1, "epoch": -1, "layer": k, "quantity": "importance", "value": v} for k, v in enumerate(values)
        ]
        write_rows(path / "layers.parquet", LAYERS, rows)
        assert curves.importance_by_layer(load_runs(tmp_path), ["a"]) == {}
    other = synthetic.write_run(tmp_path, "b", 0, experiences=2, depth=1)
    write_rows(other / "layers.parquet", LAYERS, [{**row, "value": 1.0} for row in rows])
    runs = load_runs(tmp_path)
    (plot,) = [plot for plot in plots(runs, Results(runs)) if plot.file == "importance-by-layer"]
    assert plot.caption.endswith("No shares (negative in a layer, or 0 in all): a.")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two backbones, three values of λ, which protects; seed 9 has one of them only, and naive has none."""
    folder = tmp_path_factory.mktemp("swept")
    for backbone, strength in product(("a", "b"), (1.0, 10.0, 100.0)):
        axes = {"backbone.name": backbone, "strategy": {"name": "si", "lambda": strength}}
        settings = {"strategy.name": "si", "strategy.lambda": strength, "backbone.name": backbone}
        for seed in (0, 1, *([9] if strength == 1 else [])):
            run = synthetic.write_run(
                folder, f"{backbone}-{strength:g}", seed, settings=settings, forgets=0.4 / strength
            )
            spec = json.loads((run / "spec.json").read_text())
            (run / "spec.json").write_text(json.dumps({**spec, "axes": axes}))
    synthetic.write_run(folder, "naive", 0)
    return load_runs(folder)


def test_sweeps_are_alike_but_for_one_number(swept):
    found = list(sensitivity.sweeps(swept))
    assert [(s.setting, s.name, s.values) for s in found] == [
        ("strategy.lambda", "a · si", (1, 10, 100)),
        ("strategy.lambda", "b · si", (1, 10, 100)),
    ]
    assert found[0].experiments == ("a-1", "a-10", "a-100")
    results = Results(swept)
    curve = sensitivity.curve(results, found[0], "average_forgetting", "max-all")
    expected = [results.of(e, "average_forgetting", "max-all").values[:2] for e in found[0].experiments]
    np.testing.assert_array_equal(curve.seeds, np.transpose(expected))
    assert sensitivity.curve(results, found[0], "stability_gap", "") is None


def test_sweeps_are_drawn(swept, tmp_path):
    report = make_report([swept.runs[0].path.parents[1]], tmp_path)
    assert "<h2>Sensitivity</h2>" in report.read_text()
    figure = (tmp_path / "figures" / "sensitivity-strategy.lambda-average_accuracy.svg").read_text()
    assert "a · si" in figure and "strategy.lambda" in figure


def test_two_stores_are_compared_experiment_by_experiment(tmp_path):
    before = synthetic.write_grid(tmp_path / "before")
    after = synthetic.write_grid(tmp_path / "after", seeds=(1, 2, 3))
    shutil.rmtree(after / "ac_mixer-si")
    a, b = load_runs(before), load_runs(after)
    found = compare(a, b)
    assert {(c.a, c.b) for c in found} == {(n, n) for n in ("ac_mixer-naive", "res_mixer-naive", "res_mixer-si")}
    assert {c.seeds for c in found} == {(1, 2)}
    assert {c.family for c in found} == {3}
    assert all(c.paired and c.paired.difference.mean == 0 and not c.decided for c in found)
    lines = said(found, "before", "after")
    assert lines[0] == "ac_mixer-naive: before and after give the same average accuracy on every one of 2 seeds."
    assert any(line.startswith("res_mixer-si, max-all: before") for line in lines)


def test_single_experiments_are_compared_whatever_they_are_called(tmp_path):
    for seed in (0, 1, 2):
        synthetic.write_run(tmp_path / "a", "old", seed, forgets=0.2)
        synthetic.write_run(tmp_path / "b", "new", seed, forgets=0.5)
    found = compare(load_runs(tmp_path / "a"), load_runs(tmp_path / "b"))
    (forgetting,) = [c for c in found if c.dialect == "from-learned"]
    assert forgetting.decided
    assert re.match(r"old → new, from-learned: A forgets \d+\.\d points less than B", said([forgetting], "A", "B")[0])


def test_stores_without_a_common_experiment_cannot_be_compared(tmp_path):
    synthetic.write_grid(tmp_path / "a", seeds=(0,))
    synthetic.write_run(tmp_path / "b", "else", 0)
    with pytest.raises(UserError, match=r"no finished experiment in common: .*ac_mixer-naive.*; on the other else"):
        compare(load_runs(tmp_path / "a"), load_runs(tmp_path / "b"))


def test_five_hundred_runs_make_a_report_in_a_minute(tmp_path):
    depths, strategies = (5, 10, 15, 20, 25), ("naive", "si", "ewc", "lwf", "er")
    for backbone, strategy, depth in product(("ac_mixer", "res_mixer"), strategies, depths):
        axes = {"backbone.name": backbone, "strategy.name": strategy, "backbone.depth": depth}
        folder = synthetic.write_run(
            tmp_path / "runs", f"{backbone}-{strategy}-{depth}", 0, axes=axes, depth=depth, experiences=10
        )
        for seed in range(1, 10):  # the same numbers: nothing here looks at them
            copy = shutil.copytree(folder, folder.with_name(f"seed-{seed}"))
            spec = json.loads((copy / "spec.json").read_text())
            (copy / "spec.json").write_text(json.dumps({**spec, "seed": seed}))
    started = time.process_time()
    report = make_report([tmp_path / "runs"], tmp_path / "out")
    assert time.process_time() - started < 60
    assert report.stat().st_size < 15e6


DOCS = Path(__file__).parents[1] / "docs"


def test_the_docs_list_every_measure_as_the_report_prints_it():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (DOCS / "metrics.md").read_text(), re.M)
    assert {key: symbol for key, symbol in rows if key in BY_KEY} == {m.key: m.symbol for m in MEASURES}


def test_the_docs_list_every_file(report):
    patterns = re.findall(r"^\| `([^`]+)` \|", (DOCS / "reports.md").read_text(), re.M)
    written = {p.relative_to(report.parent).as_posix() for p in report.parent.rglob("*.*")}
    written |= {"noise.csv", "published.csv", "confusion.csv"}
    assert [name for name in written if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in written)] == []


def test_the_python_of_the_docs(store, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "reports.md").read_text(), re.S)
    for name in ("quick", "other"):
        shutil.copytree(store / "ac_mixer-naive", tmp_path / "runs" / name / "ac_mixer-naive")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "quick and other give the same forgetting" in capsys.readouterr().out


def test_slugs_and_contrast():
    assert slug("../<a b>/c") == "a-b-c"
    assert slug("///") == "figure"
    assert contrasting((1, 1, 1, 1)) == "#000000"
    assert contrasting((0, 0, 0.3, 1)) == "#ffffff"


def test_reports_import_no_torch():
    heavy = {"torch", "avalanche", "matplotlib.pyplot"}
    code = f"import acn_cl.reports, acn_cl.runs.load, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])
