"""A report held against its runs: nothing to say of a fresh one, and whatever was changed is found."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from acn_cl.cli import main
from acn_cl.errors import UserError
from acn_cl.reports import make_report, verify
from acn_cl.reports.results import Results, digest
from acn_cl.runs.files import write_rows
from acn_cl.runs.load import checksum_of, load_runs
from acn_cl.runs.schema import ACCURACY

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and its report, made once; tests copy both."""
    folder = tmp_path_factory.mktemp("made")
    settings = {"stream.name": "split-cifar100", "stream.experiences": 20, "epochs": 10, "backbone.depth": 5}
    settings |= {"backbone.width": 128, "backbone.patch": 4}
    comparisons = [{"experiments": ["a", "b"], "primary": True}]
    for name, forgets in (("a", 0.2), ("b", 0.4)):
        for seed in range(3):
            rows = synthetic.accuracy_rows(synthetic.accuracy_by_depth(seed, depth=5, forgets=forgets))
            rows += [{**row, "condition": "gaussian-0.1"} for row in rows if row["trained"] == 3]
            extra = {**synthetic.measured(5)["extra"], "comparisons": comparisons}
            more = {"settings": settings, "depth": 5, "rows": rows, "extra": extra}
            more |= {"answers": synthetic.answers(seed)} if name == "a" else {}
            synthetic.write_run(folder / "runs", name, seed, axes={"backbone.name": name}, **more)
    (folder / "theirs.csv").write_text("0.9,\n0.5,0.8\n")
    make_report([folder / "runs", folder / "theirs.csv"], folder / "report", equivalence=3.0)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """Runs and report elsewhere, which says so itself: verification is given the folders."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    shutil.copytree(made / "report", tmp_path / "report")
    shutil.copy(made / "theirs.csv", tmp_path)
    return tmp_path


def folders(copy):
    return [copy / "runs", copy / "theirs.csv"]


def change(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_a_fresh_report_is_what_its_runs_give(made):
    found = verify(made / "report" / "report.html")
    assert found.differences == []
    assert found.missing == []
    written = {p.relative_to(made / "report").as_posix() for p in (made / "report").rglob("*") if p.is_file()}
    assert set(found.checked) == {name for name in written if not name.startswith(("figures/", "files.txt"))}
    assert all(found.checked.values())
    assert found.checked["report.html"] > 1000


def test_report_and_runs_may_have_moved(copy):
    assert verify(copy / "report", folders(copy)).differences == []


@pytest.mark.parametrize(
    ("name", "pattern", "place"),
    [
        ("report.html", r">(\d\d\.\d) ± \d\.\d</span>", "report.html · summary · a"),
        ("report.html", r"<b>(−\d+\.\d)</b>", "report.html · findings"),
        ("report.html", r'"mean": \[\[(\d+\.\d+)', "report.html · matrices · a"),
        ("report.html", r"by seed 0: (\d+\.\d)", "report.html · summary · a"),
        ("report.html", r"<li class=\"decided\">.*?less than b \(95 % interval (\d+\.\d)", "report.html · findings"),
        ("report.html", r'data-value="(\d+\.\d\d+)"', "report.html · summary"),
        ("results.csv", r"average_accuracy,,%,3,(\d+\.\d+)", "results.csv:2 · a average_accuracy · mean"),
        ("seeds.csv", r"a,0,average_accuracy,,%,(\d+\.\d+)", "seeds.csv:2 · a 0 average_accuracy · value"),
        ("noise.csv", r"gaussian-0.1,%,3,(\d+\.\d+)", "noise.csv:3 · a gaussian-0.1 % · mean"),
        ("report.html", r"of 1, taken for 4: (\d+\.\d)", "report.html · confusion"),
        ("confusion.csv", r"a,1,1,%,3,(\d+\.\d+)", "confusion.csv:2 · a 1 1 · mean"),
        ("comparisons.csv", r"0 1 2,(-\d+\.\d+)", "comparisons.csv:2"),
        ("results.md", r"\| a \| 3 \| (\d+\.\d)", "results.md:3"),
        ("tables/summary-max-all.tex", r"a & 3 & (\d+\.\d)", "tables/summary-max-all.tex:"),
        ("tables/noise.tex", r"a & (\d+\.\d)", "tables/noise.tex:"),
    ],
)
def test_a_changed_number_is_found(copy, name, pattern, place):
    path = copy / "report" / name
    text = path.read_text()
    found = re.search(pattern, text, re.S)
    end = found.end(1)
    digit = "1" if text[end - 1] != "1" else "2"
    path.write_text(text[: end - 1] + digit + text[end:])
    differences = verify(copy / "report", folders(copy)).differences
    assert differences
    assert all(str(one).startswith(place) for one in differences), [str(one) for one in differences]


def test_a_changed_run_is_found_and_named(copy):
    run = copy / "runs" / "a" / "seed-1"
    rows = synthetic.accuracy_rows(synthetic.accuracy_by_depth(1, depth=5, forgets=0.25))
    write_rows(run / "accuracy.parquet", ACCURACY, rows)
    said = [str(one) for one in verify(copy / "report", folders(copy)).differences]
    assert said[0].startswith("data of a seed 1: the report has ")
    assert any(line.startswith("report.html · summary · a: the report has") for line in said)
    assert any(line.startswith("results.csv:2 · a average_accuracy · mean: the report has") for line in said)
    assert not any(" · b" in line and "mean" in line for line in said)


def test_runs_that_came_or_went_are_found(copy):
    shutil.rmtree(copy / "runs" / "b" / "seed-2")
    shutil.copytree(copy / "runs" / "b" / "seed-1", copy / "runs" / "b" / "seed-7")
    spec = copy / "runs" / "b" / "seed-7" / "spec.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "seed": 7}))
    said = [str(one) for one in verify(copy / "report", folders(copy)).differences]
    assert any(re.match("data of b seed 2: the report has [0-9a-f]{12}, the runs give nothing", line) for line in said)
    assert any(re.match("data of b seed 7: the report has nothing, the runs give", line) for line in said)


def test_a_changed_csv_of_somebody_is_found(copy):
    change(copy / "theirs.csv", "0.5", "0.6")
    said = [str(one) for one in verify(copy / "report", folders(copy)).differences]
    assert said[0].startswith("data of theirs seed 0")


def test_the_page_alone_can_be_verified(copy):
    alone = shutil.copy(copy / "report" / "report.html", copy / "sent.html")
    found = verify(Path(alone), folders(copy))
    assert list(found.checked) == ["report.html"]
    assert "results.csv" in found.missing
    assert found.differences == []


DAMAGED = '<script id="data">{"made": {"folders": [3], "out": "", "equivalence": 0, "runs": [4]}}</script>'


@pytest.mark.parametrize(
    "text", ["", "<html><p>no report</p></html>", '<script id="data">{"made": 3}</script>', DAMAGED]
)
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "x.html").write_text(text)
    with pytest.raises(UserError, match=r"x.html: not a report"):
        verify(tmp_path / "x.html")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as a report"):
        verify(tmp_path / "none.html")


def run_command(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_command_says_what_differs_and_ends_in_3(copy, capsys):
    command = ("report", *folders(copy), "--verify", copy / "report" / "report.html")
    assert run_command(*command) == 0
    assert "every number is what the runs give" in capsys.readouterr().out
    change(copy / "report" / "results.md", "| a | 3 |", "| a | 4 |")
    assert run_command(*command) == 3
    said = capsys.readouterr()
    assert "differs: results.md:3" in said.out
    assert "1 difference between" in said.err


def test_a_report_wants_a_folder(capsys):
    assert run_command("report") == 2
    assert "a folder of runs is wanted" in capsys.readouterr().err


def test_a_margin_that_makes_no_sense_is_refused(made, capsys):
    assert run_command("report", made / "runs", "--equivalence", "-1", "--out", made / "other") == 2
    assert "margin of equivalence" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "confusion"), [("a", " confusion.parquet"), ("b", "")])
def test_a_runs_checksum_is_what_the_shell_gives(made, name, confusion):
    path = made / "runs" / name / "seed-0"
    files = f"accuracy.parquet{confusion} layers.parquet spec.json timing.parquet"
    shell = subprocess.run(["sh", "-c", f"sha256sum {files} | sha256sum"], cwd=path, capture_output=True, check=True)
    assert checksum_of(path) == shell.stdout.decode().split()[0]


def test_every_number_carries_the_checksum_of_its_runs(made):
    runs = load_runs(made / "runs")
    lines = "".join(f"{checksum_of(made / 'runs' / 'a' / f'seed-{seed}')}\n" for seed in range(3))
    expected = hashlib.sha256(lines.encode()).hexdigest()[:12]
    assert Results(runs).of("a", "average_accuracy").data == expected
    assert digest([run.checksum for run in runs.finished("a")]) == expected
    page = (made / "report" / "report.html").read_text()
    assert f"data {expected}" in page
    assert f",{expected}," in (made / "report" / "results.csv").read_text()
