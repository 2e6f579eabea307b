"""A recipe's search, carried out: its trials are run, and each experiment takes the setting that did best."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from acn_cl.bookkeeping import Display, Outcome
from acn_cl.errors import UserError
from acn_cl.recipe import Recipe, Search, Trial
from acn_cl.runs.load import read_run
from acn_cl.search import best, record
from acn_cl.tables import resolve

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
    askers = [_asker(search) for search in recipe.searches]
    while any(rounds := [asker.ask() for asker in askers]):
        trials = {trial.judged.id: trial.judged for trials in rounds for trial in trials}
        outcomes = train(replace(recipe, planned=tuple(trials.values()), searches=()), out / FOLDER)
        scores = {name: _score([one for one in outcomes if one.experiment == name]) for name in trials}
        for asker, made in zip(askers, rounds, strict=True):
            asker.tell([scores[trial.judged.id] for trial in made])
    planned = []
    for one, search, asker in zip(recipe.planned, recipe.searches, askers, strict=True):
        if all(score is None for score in asker.scores):
            raise UserError(f"{one.id}: every trial of its search failed; acn-cl status {out / FOLDER} says why")
        winner = asker.trials[best(asker.scores)]
        display.note(f"{one.id}: {_in_words(winner, asker.scores)}")
        settings = [trial.setting for trial in asker.trials]
        planned.append(replace(winner.planned, search=record(search.section, settings, asker.scores)))
    return replace(recipe, planned=tuple(planned), searches=())


class _AllAtOnce:
    """The trials of a search that knows all of them beforehand, and what came of them."""

    def __init__(self, search: Search) -> None:
        self._waiting: Sequence[Trial] = search.trials
        self.trials: list[Trial] = []
        self.scores: list[float | None] = []

    def ask(self) -> Sequence[Trial]:
        """What is tried next; nothing when all is over."""
        made, self._waiting = self._waiting, ()
        self.trials += made
        return made

    def tell(self, scores: Sequence[float | None]) -> None:
        """The scores of what was asked for last, in its order."""
        self.scores += scores


class _Proposed(_AllAtOnce):
    """The trials of an adaptive search."""

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._search, self._searcher = search, resolve("acn_cl.adaptive:Adaptive")(search.section)

    def ask(self) -> Sequence[Trial]:
        proposed = self._searcher.ask()
        self._names = list(proposed)
        self._waiting = [self._search.make(setting) for setting in proposed.values()]
        return super().ask()

    def tell(self, scores: Sequence[float | None]) -> None:
        super().tell(scores)
        for name, score in zip(self._names, scores, strict=True):
            self._searcher.tell(name, score)


def _asker(search: Search) -> _AllAtOnce:
    return (_Proposed if search.section.method == "adaptive" else _AllAtOnce)(search)


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


def _in_words(winner: Trial, scores: list[float | None]) -> str:
    setting = ", ".join(f"{key}={value}" for key, value in winner.setting.items()) or "nothing to choose"
    return f"{setting} of {len(scores)} tried: {100 * (scores[best(scores)] or 0):.1f} % on the validation part"
