"""Comparisons that a recipe declares: read, checked, kept in the spec, and tested as one family."""

import json
import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from acn_cl import stats
from acn_cl.errors import SpecError, UserError
from acn_cl.recipe import load_recipe
from acn_cl.reports import make_report, words
from acn_cl.reports.comparisons import compare_all, frame
from acn_cl.reports.measures import MEASURES
from acn_cl.reports.results import Results
from acn_cl.runs import declared
from acn_cl.runs.declared import Declared, parse_comparisons
from acn_cl.runs.load import load_runs

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

RECIPE = """\
stream: {name: split-digits}
matrix:
  backbone.name: [ac_mixer, res_mixer]
  strategy: [naive, {name: si, lambda: 2.0}]
comparisons:
  - {axis: backbone.name, values: [ac_mixer, res_mixer], primary: true}
  - {axis: strategy, values: [naive, si], measure: average_accuracy, test: sign-flip}
  - {experiments: [ac_mixer-naive, res_mixer-si-lambda2], dialect: max-all}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_recipe_gives_every_experiment_its_comparisons(write):
    planned = load_recipe(write(RECIPE)).planned
    assert len(planned) == 4
    first, second, third = planned[0].comparisons
    assert all(p.comparisons == planned[0].comparisons for p in planned)
    assert first == Declared(axis="backbone.name", values=("ac_mixer", "res_mixer"), primary=True)
    assert (second.measure, second.dialect, second.test) == ("average_accuracy", "", "sign-flip")
    assert (third.experiments, third.dialect) == (("ac_mixer-naive", "res_mixer-si-lambda2"), "max-all")
    assert parse_comparisons([one.as_dict() for one in planned[0].comparisons]) == planned[0].comparisons


def test_an_override_may_take_a_compared_axis_away(write):
    assert load_recipe(write(RECIPE), ["backbone.name=ac_mixer"]).planned[0].comparisons
    assert load_recipe(write(RECIPE), seeds="0-1").planned[0].comparisons


def test_a_recipe_without_declares_nothing(write):
    assert load_recipe(write("stream: {name: split-digits}\n")).planned[0].comparisons == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "{axis: backbone.nam, values: [ac_mixer, res_mixer]}",
            r"no axis 'backbone.nam'; did you mean 'backbone.name'",
        ),
        ("{axis: backbone.name, values: [ac_mixer, vit]}", r"'vit' is no value of backbone.name"),
        ("{axis: backbone.name, values: [ac_mixer]}", "list of two different ones"),
        ("{axis: backbone.name, values: [ac_mixer, ac_mixer]}", "list of two different ones"),
        ("{axis: backbone.name}", "needs an axis, .* and two of its values"),
        ("{values: [ac_mixer, res_mixer]}", "needs an axis"),
        ("{experiments: [ac_mixer-naive, ac_mixer-nai]}", "no experiment is called 'ac_mixer-nai'; did you mean"),
        ("{experiments: [ac_mixer-naive, 3]}", "two ids of experiments"),
        ("{experiments: [a, b], axis: strategy}", "either axis and values, or experiments"),
        ("{}", "either axis and values, or experiments"),
        ("just text", "should be a mapping"),
        ("{axis: strategy, values: [naive, si], mesure: x}", r"no such key; did you mean 'measure'"),
        ("{axis: strategy, values: [naive, si], measure: accuracy}", "'accuracy' is not one of its values"),
        ("{axis: strategy, values: [naive, si], dialect: best}", "'best' is not one of its values"),
        ("{axis: strategy, values: [naive, si], measure: average_accuracy, dialect: max-all}", "has no dialects"),
        ("{axis: strategy, values: [naive, si], test: wilcoxon}", "known: paired-t, sign-flip"),
        ("{axis: strategy, values: [naive, si], primary: maybe}", "true or false"),
    ],
)
def test_a_wrong_comparison_is_one_line_with_its_place(write, line, says):
    text = RECIPE.partition("comparisons:")[0] + f"comparisons:\n  - {line}\n"
    with pytest.raises(UserError, match=rf"mine.yaml:6: .*{says}"):
        load_recipe(write(text))


@pytest.mark.parametrize("value", ["yes", 3, {"axis": "a"}, None])
def test_a_list_is_wanted(value):
    with pytest.raises(SpecError, match="list of comparisons"):
        parse_comparisons(value)


def test_one_claim_is_primary(write):
    with pytest.raises(UserError, match="more than one is primary"):
        load_recipe(write(RECIPE.replace("sign-flip}", "sign-flip, primary: true}")))


def test_what_can_be_declared_is_what_has_verbs():
    assert set(declared.MEASURES) == {measure.key for measure in MEASURES if measure.more}


DECLARED = [
    {"axis": "backbone.name", "values": ["ac_mixer", "res_mixer"], "primary": True},
    {"axis": "strategy.name", "values": ["si", "naive"], "measure": "average_accuracy", "test": "sign-flip"},
    {"experiments": ["ac_mixer-si", "res_mixer-naive"], "measure": "effective_depth"},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return synthetic.write_grid(folder, seeds=range(8), extra={"comparisons": DECLARED})


@pytest.fixture(scope="module")
def found(store):
    runs = load_runs(store)
    return compare_all(runs, Results(runs))


def test_the_declared_pairs_are_one_family_corrected_together(store, found):
    own = [c for c in found if c.declared]
    assert [(c.primary, c.measure.key, c.a, c.b) for c in own] == [
        (True, "average_forgetting", "ac_mixer-naive", "res_mixer-naive"),
        (True, "average_forgetting", "ac_mixer-si", "res_mixer-si"),
        (False, "average_accuracy", "ac_mixer-si", "ac_mixer-naive"),
        (False, "average_accuracy", "res_mixer-si", "res_mixer-naive"),
        (False, "effective_depth", "ac_mixer-si", "res_mixer-naive"),
    ]
    results = Results(load_runs(store))
    raw = []
    for c in own:
        a, b = (results.of(name, c.measure.key, c.dialect).values for name in (c.a, c.b))
        paired = stats.compare(a, b)
        raw.append(paired.permutation_p if c.test == "sign-flip" else paired.p)
    assert [c.p for c in own] == pytest.approx(stats.holm(raw), nan_ok=True)
    assert {c.family for c in own} == {int(np.sum(~np.isnan(raw)))}
    assert all(c.late == 0 for c in own)
    assert raw[2] == stats.smallest_permutation_p(8)


def test_the_other_pairs_are_as_they_would_be_without(found, tmp_path):
    runs = load_runs(synthetic.write_grid(tmp_path, seeds=range(8)))
    plain = [(c.a, c.b, c.measure.key, c.dialect, c.p, c.family) for c in compare_all(runs, Results(runs))]
    assert [(c.a, c.b, c.measure.key, c.dialect, c.p, c.family) for c in found if not c.declared] == plain


def test_whole_sections_may_be_compared(tmp_path):
    sections = [{"name": "si", "lambda": 1.0}, {"name": "si", "lambda": 10.0}]
    said = {"comparisons": [{"axis": "strategy", "values": sections}]}
    for section in sections:
        for seed in range(3):
            name, settings = f"si-{section['lambda']:g}", {"strategy.lambda": section["lambda"]}
            run = synthetic.write_run(tmp_path, name, seed, settings=settings, forgets=0.4, extra=said)
            spec = json.loads((run / "spec.json").read_text())
            (run / "spec.json").write_text(json.dumps({**spec, "axes": {"strategy": section}}))
    runs = load_runs(tmp_path)
    (one,) = [c for c in compare_all(runs, Results(runs)) if c.declared]
    assert (one.a, one.b, one.late) == ("si-1", "si-10", 0)


def test_what_was_declared_after_a_run_had_begun_is_said(tmp_path):
    for seed in range(4):
        for name, forgets in (("a", 0.2), ("b", 0.4)):
            said = {"comparisons": [{"experiments": ["a", "b"]}]} if seed else {}
            synthetic.write_run(tmp_path, name, seed, axes={"backbone.name": name}, forgets=forgets, extra=said)
    runs = load_runs(tmp_path)
    (one,) = [c for c in compare_all(runs, Results(runs)) if c.declared]
    assert one.late == 2
    assert "Declared after 2 of the runs had begun" in words.verdict(one, "A", "B")


def test_the_page_tells_declared_from_explored(store, found, tmp_path):
    text = make_report([store], tmp_path).read_text()
    assert "Declared by the recipe synthetic" in text
    assert "Other pairs, not declared: for exploring" in text
    table = (tmp_path / "tables" / "declared-synthetic.tex").read_text()
    assert table.count("sign{-}flip") == 2
    csv = (tmp_path / "comparisons.csv").read_text()
    assert csv == frame(found).to_csv(index=False)
    assert len(re.findall("^primary,", csv, re.M)) == 2


def test_damaged_declarations_in_a_run_are_the_users_error(tmp_path):
    synthetic.write_run(tmp_path, "a", 0, extra={"comparisons": [{"axis": 3}]})
    runs = load_runs(tmp_path)
    with pytest.raises(UserError, match=r"spec.json: comparisons.0: needs an axis"):
        compare_all(runs, Results(runs))


def test_what_too_few_seeds_cannot_reach_is_said(tmp_path):
    for seed in range(4):
        for name, forgets in (("a", 0.2), ("b", 0.4)):
            said = {"comparisons": [{"experiments": ["a", "b"], "test": "sign-flip"}]}
            synthetic.write_run(tmp_path, name, seed, axes={"backbone.name": name}, forgets=forgets, extra=said)
    runs = load_runs(tmp_path)
    (one,) = [c for c in compare_all(runs, Results(runs)) if c.declared]
    assert "The least p of this test with 4 seeds: 0.12, uncorrected" in words.verdict(one, "A", "B")


@pytest.mark.parametrize(("margin", "says"), [(30.0, "Equivalent within 30 points"), (0.0, "")])
def test_equivalence_is_scipys_two_one_sided_tests_corrected(store, margin, says):
    runs = load_runs(store)
    results = Results(runs)
    own = [c for c in compare_all(runs, results, margin) if c.declared]
    raw = []
    for c in own:
        a, b = (results.of(name, c.measure.key, c.dialect).values for name in (c.a, c.b))
        raw.append(stats.equivalence(a, b, margin) if margin else np.nan)
    assert [c.p_equivalent for c in own] == pytest.approx(stats.holm(raw), nan_ok=True)
    assert says in words.verdict(own[0], "A", "B")


def test_what_is_neither_different_nor_alike_is_said(tmp_path):
    for seed in range(3):
        for name, forgets in (("a", 0.30), ("b", 0.31)):
            synthetic.write_run(tmp_path, name, seed, axes={"backbone.name": name}, forgets=forgets)
    runs = load_runs(tmp_path)
    found = [c for c in compare_all(runs, Results(runs), 0.01) if c.dialect == "from-learned"]
    said = words.verdict(found[0], "A", "B")
    assert said.startswith("Undetermined")
    assert "Not shown to be within 0.01 points of each other" in said
