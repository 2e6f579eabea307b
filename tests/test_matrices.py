"""Accuracy matrices of other people: read from CSV, refused in one line, and shown beside ours."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from acn_cl import metrics
from acn_cl.errors import UserError
from acn_cl.reports import compare, labels, make_report
from acn_cl.reports.comparisons import one_factor_pairs
from acn_cl.reports.results import Results
from acn_cl.runs.load import load_runs

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

R = np.array([[0.9, np.nan], [0.6, 0.8]])
SQUARE = "0.9,\n0.6,0.8\n"
LONG = "seed,trained,evaluated,accuracy\n3,0,0,0.9\n3,1,0,0.6\n3,1,1,0.8\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="theirs.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        SQUARE,
        "90,\n60,80\n",
        "0.9,nan\n0.6,0.8",
        "0.9;-\r\n0.6;0.8\r\n",
        "0.9\t\n0.6\t0.8\n",
        "\ufeff0.9,NaN\n\n 0.6 , 0.8\n",
        "trained,evaluated,accuracy\n0,0,0.9\n1,0,0.6\n1,1,0.8\n",
        "evaluated,accuracy,trained\n1,80,2\n2,nan,1\n1,90,1\n2,80,2\n1,60,2\n".replace("1,80,2\n", "", 1),
    ],
)
def test_the_two_forms_give_the_matrix(write, text):
    runs = load_runs(write(text))
    assert [(run.experiment, run.seed, run.imported, run.status.state) for run in runs.runs] == [
        ("theirs", 0, True, "done")
    ]
    np.testing.assert_allclose(runs.matrix("theirs", 0), R)


def test_seeds_are_of_the_column_or_of_the_files_name(write):
    assert [run.seed for run in load_runs(write(LONG)).runs] == [3]
    folders = [write(SQUARE, f"their-si{end}.csv") for end in ("-seed0", "_seed-12", ".seed2")]
    assert [(run.experiment, run.seed) for run in load_runs(*folders).runs] == [
        ("their-si", 0),
        ("their-si", 2),
        ("their-si", 12),
    ]


def test_one_file_may_hold_several_experiments_and_what_came_before_training(write):
    text = "experiment,seed,trained,evaluated,accuracy\na,0,-1,0,0.1\na,0,0,0,0.9\nb,1,0,0,0.8\n"
    runs = load_runs(write(text))
    assert runs.experiments == ["a", "b"]
    assert runs.initial("a", 0) == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty; expected columns"),
        ("\n \n", "empty; expected columns"),
        ("0.9,0.1\n0.6\n", r"theirs.csv:2: 1 numbers in a matrix of 2 rows; it must be square"),
        ("0.9,0.1,0.2\n0.6,0.7,0.1\n", "3 numbers in a matrix of 2 rows"),
        ("0.9,\n0.6,1.2.3\n", r"theirs.csv:2: '1.2.3' is not an accuracy"),
        ("0.9,\n-0.6,0.8\n", "'-0.6' is not an accuracy"),
        ("90,\n60,180\n", "'180' is not an accuracy"),
        ("0.9,\n0.6,inf\n", "'inf' is not an accuracy"),
        (",\n,\n", "empty; expected columns"),
        ("nan,nan\nnan,nan\n", "no accuracy in it"),
        ("nan,\n0.6,0.8\n", "nothing after training on experience 0, though there is on 1"),
        ("task,accuracy\n0,0.9\n", r"theirs.csv:1: column 'task' is not known here"),
        ("trained,accuracy\n0,0.9\n", "no column 'evaluated'"),
        ("trained,trained,evaluated,accuracy\n0,0,0,0.9\n", "more than one column 'trained'"),
        ("trained,evaluated,accuracy\n0,0\n", r"theirs.csv:2: 2 cells under 3 heads"),
        ("trained,evaluated,accuracy\n0,x,0.9\n", "evaluated is 'x'; expected a whole number"),
        ("trained,evaluated,accuracy\n-2,0,0.9\n", "trained is '-2'"),
        ("seed,trained,evaluated,accuracy\n-1,0,0,0.9\n", "seed is '-1'"),
        ("trained,evaluated,accuracy\n0,0,0.9\n0,0,0.8\n", "two accuracies on experience 0 after training on 0"),
        ("trained,evaluated,accuracy\n-1,0,0.9\n", "no accuracy after training"),
        ("trained,evaluated,accuracy\n99999999,0,0.9\n", "experiences"),
        ('0.9,"0.1\n', "not CSV"),
        (b"\xff\xfe0.9", "not text"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(write, text, says):
    with pytest.raises(UserError, match=says) as refused:
        load_runs(write(text))
    assert "theirs.csv" in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"none.csv: no such file"):
        load_runs(tmp_path / "none.csv")


def test_a_file_may_not_bear_the_name_of_an_experiment_of_ours(write, tmp_path):
    synthetic.write_run(tmp_path / "runs", "theirs", 1)
    with pytest.raises(UserError, match=r"is two things.*rename the file"):
        load_runs(tmp_path / "runs", write(SQUARE))


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Ours on four experiences, and two seeds of theirs on as many."""
    folder = tmp_path_factory.mktemp("beside")
    synthetic.write_grid(folder / "runs")
    files = []
    for seed in (0, 1):
        R = synthetic.accuracy_by_depth(seed, depth=1)[..., -1]
        files.append(folder / f"<theirs>-seed{seed}.csv")
        files[-1].write_text("\n".join(",".join("" if np.isnan(x) else f"{x}" for x in row) for row in R))
    return [folder / "runs", *files]


def test_their_measures_are_those_of_their_matrix(beside):
    runs = load_runs(*beside)
    results = Results(runs)
    for seed in (0, 1):
        R = synthetic.accuracy_by_depth(seed, depth=1)[..., -1]
        for dialect in metrics.DIALECTS:
            value = results.of("<theirs>", "average_forgetting", dialect).values[seed]
            assert value == pytest.approx(100 * metrics.average_forgetting(R, dialect))
    for unknown in ("effective_depth", "training_time", "parameters"):
        assert results.of("<theirs>", unknown).undefined


def test_they_stand_beside_ours_and_are_in_no_test(beside, tmp_path):
    runs = load_runs(*beside)
    (members,) = labels.panels(runs).values()
    assert len(members) == 5 and members[-1] == "<theirs>"
    assert labels.looks(runs)["<theirs>"].colour == labels.NEUTRAL
    assert labels.labels(runs)["ac_mixer-naive"] == "ac_mixer · naive"
    assert not [pair for pair in one_factor_pairs(runs) if "<theirs>" in pair]
    report = make_report(beside, tmp_path)
    text = report.read_text()
    assert "2 imported as accuracy matrices" in text
    assert "&lt;theirs&gt;" in text and "<theirs>" not in text
    table = pd.read_csv(tmp_path / "results.csv")
    assert len(table[table["experiment"] == "<theirs>"]) == len(table) / 5


def test_their_matrices_alone_make_a_report(beside, tmp_path):
    text = make_report(beside[1:], tmp_path).read_text()
    assert "imported, 4 experiences" in text


def test_a_matrix_is_compared_with_a_run_seed_by_seed(beside):
    found = compare(load_runs(beside[0] / "ac_mixer-si"), load_runs(*beside[1:]))
    assert {c.seeds for c in found} == {(0, 1)}
