"""The view of many runs: what it reads from their folders, and what it makes of it."""

import io

import pytest
from rich.console import Console

from acn_cl.bookkeeping import Outcome
from acn_cl.overview import Overview, fraction, where
from acn_cl.runs.folder import RunFolder


@pytest.fixture
def begun(tmp_path):
    """``begun(seed, experience, epoch)``: a run of 5 experiences of 4 epochs that is that far, and held."""

    def make(seed, experience, epoch):
        folder = RunFolder(tmp_path / f"si/seed-{seed}", "si", seed)
        folder.hold()
        folder.write_status("running", {"experience": experience, "experiences": 5, "epoch": epoch, "epochs": 4})
        return folder.path

    return make


@pytest.fixture
def shown():
    """``shown(terminal)``: an overview, and a call that gives the text it has drawn."""

    def make(terminal=False):
        text = io.StringIO()
        overview = Overview(Console(file=text, force_terminal=terminal, width=200, height=8, highlight=False))
        return overview, text.getvalue

    return make


def outcome(path, state="done", error=None):
    return Outcome(path.parent.name, int(path.name.removeprefix("seed-")), path, state, error)


def test_how_far_a_run_is(begun, tmp_path):
    """2 of 5 experiences and 3 of 4 epochs of the third: 11 of 20 epochs."""
    assert fraction(begun(0, 2, 3)) == pytest.approx(11 / 20)
    assert where(begun(1, 2, 3)) == "experience 3/5 epoch 3/4"
    assert where(begun(2, 5, 0)) == "experience 5/5 epoch 0/4"
    assert (where(tmp_path), fraction(tmp_path)) == ("waiting", 0.0)
    (tmp_path / "status.json").write_text('{"progress": []}')
    assert (where(tmp_path), fraction(tmp_path)) == ("waiting", 0.0)


def test_without_a_terminal_a_line_for_every_end(begun, shown, monkeypatch):
    monkeypatch.setattr("acn_cl.overview.LINE_EVERY", 0.05)
    overview, text = shown()
    first, second = begun(0, 2, 2), begun(1, 0, 0)
    with overview:
        overview.sent([first], 3)
        overview.sent([second], 3)
        overview.run_ended(outcome(second, "failed", "no space"))
        overview.note("something to know")
        overview._over.wait(0.5)
    lines = text().splitlines()
    assert "si seed 1: failed: no space" in lines and "something to know" in lines
    assert any(line.startswith("1 of 3 runs ended, 1 failed, 1 at work") for line in lines), lines


def test_on_a_terminal_a_row_for_every_task_that_fits(begun, shown):
    overview, text = shown(terminal=True)
    with overview:
        overview.sent([begun(0, 2, 3), begun(1, 2, 3)], 30)
        for seed in range(2, 8):
            overview.sent([begun(seed, 0, 1)], 30)
        overview._live.refresh()
    drawn = text()
    assert "si seed-0 and 1 more" in drawn and "experience 3/5 epoch 3/4" in drawn
    assert "and 4 more" in drawn, "a screen of 8 lines has room for 3"
    assert "0 of 30 runs ended, 8 at work" in drawn


def test_the_runs_after_a_search_are_counted_anew(begun, shown, tmp_path):
    overview, _ = shown()
    for seed in (0, 1):
        overview.sent([begun(seed, 0, 0)], 2)
    for seed in (0, 1):
        overview.run_ended(outcome(tmp_path / f"si/seed-{seed}"))
    overview.run_ended(outcome(tmp_path / "si/seed-2", "skipped"))
    overview.sent([begun(3, 0, 0)], 5)
    assert overview._summary().startswith("1 of 5 runs ended, 1 at work")
