"""A recipe's search, carried out: its trials are run, and each experiment takes the setting that did best."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from acn_cl.bookkeeping import Display, Outcome
from acn_cl.errors import UserError
from acn_cl.recipe import Recipe, Search
from acn_cl.runs.load import read_run
from acn_cl.search import best, record

FOLDER = "search"
"""Of the trials, in the runs' folder: one deeper than runs, so that no report takes them for results."""


def chosen(recipe: Recipe, out: Path, train: Callable[[Recipe, Path], list[Outcome]], display: Display) -> Recipe:
    """The recipe with the settings that did best on the validation part.

    Args:
        recipe: with its searches.
        out: the runs' folder.
        train: runs a recipe into a folder.
        display: is told what was chosen.

    Raises:
        UserError: every trial of an experiment failed.
    """
    trials = tuple(trial.judged for search in recipe.searches for trial in search.trials)
    outcomes = train(replace(recipe, planned=trials, searches=()), out / FOLDER)
    scores = {name: _score([one for one in outcomes if one.experiment == name]) for name in {t.id for t in trials}}
    planned = []
    for one, search in zip(recipe.planned, recipe.searches, strict=True):
        found = [scores[trial.judged.id] for trial in search.trials]
        if all(score is None for score in found):
            raise UserError(f"{one.id}: every trial of its search failed; acn-cl status {out / FOLDER} says why")
        winner = search.trials[best(found)]
        display.note(f"{one.id}: {_in_words(search, found)}")
        settings = [trial.setting for trial in search.trials]
        planned.append(replace(winner.planned, search=record(search.section, settings, found)))
    return replace(recipe, planned=tuple(planned), searches=())


def _score(outcomes: list[Outcome]) -> float | None:
    """Mean over the seeds of a trial; ``None`` if one of them failed."""
    if any(one.state == "failed" for one in outcomes):
        return None
    return sum(validation_accuracy(one.path) for one in outcomes) / len(outcomes)


def validation_accuracy(folder: Path) -> float:
    """Accuracy of the whole network after the last experience, averaged over those learned; no other row is read."""
    rows = read_run(folder).accuracy
    rows = rows[(rows["part"] == "validation") & (rows["condition"] == "clean") & (rows["step"] == -1)]
    last = rows["trained"].max()
    rows = rows[(rows["trained"] == last) & (rows["evaluated"] <= last) & (rows["depth"] == rows["depth"].max())]
    return float(rows["accuracy"].mean())


def _in_words(search: Search, scores: list[float | None]) -> str:
    winner = search.trials[best(scores)]
    setting = ", ".join(f"{key}={value}" for key, value in winner.setting.items()) or "nothing to choose"
    return f"{setting} of {len(scores)} tried: {100 * (scores[best(scores)] or 0):.1f} % on the validation part"
