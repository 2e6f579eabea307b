"""Published numbers beside ours: data files with their source, matched to experiments by their settings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acn_cl import stats
from acn_cl.errors import UserError
from acn_cl.reports.measures import BY_KEY, Measure
from acn_cl.reports.results import Result, Results
from acn_cl.runs.load import Runs
from acn_cl.spec import flatten
from acn_cl.specfile import read_spec_file

FOLDER = "acn_cl.benchmarks.recipes"
NEEDED = {"source": str, "place": str, "cells": list}
ALLOWED = {*NEEDED, "seeds", "assumed_seeds", "dialect", "settings"}


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        source, place: who published it, and where there.
        settings: what an experiment must have been run with, by dotted name; of a list of values, one.
        measure, dialect: what it is of.
        mean, std: in percent.
        n: seeds; 0: not given.
        assumed: seeds to take in its place for the joint interval; 0: none.
    """

    source: str
    place: str
    settings: Mapping[str, Any]
    measure: Measure
    dialect: str
    mean: float
    std: float
    n: int
    assumed: int

    @property
    def summary(self) -> stats.Summary:
        """As if of the assumed number of seeds where none is given."""
        return stats.Summary(self.n or self.assumed, self.mean, self.std, np.nan, np.nan)


@dataclass(frozen=True)
class Beside:
    """One of our numbers beside the published one; ``difference`` is ours minus theirs."""

    ours: Result
    theirs: Published
    difference: stats.Unpaired


def beside_published(runs: Runs, results: Results) -> list[Beside]:
    """Every number of ours that has a published one of the same settings."""
    known = list(load_published())
    return [
        Beside(ours, number, stats.unpaired(ours.summary, number.summary))
        for experiment in results.experiments
        for settings in [flatten(runs.finished(experiment)[0].settings)]
        for number in known
        if matches(settings, number)
        and not (ours := results.of(experiment, number.measure.key, number.dialect)).undefined
    ]


def load_published(folder: Path | None = None) -> Iterator[Published]:
    """All numbers of the data files in ``folder``; the built-in ones by default.

    Raises:
        UserError: a file is damaged.
    """
    place = folder or Path(str(resources.files(FOLDER))) / "published"
    for path in sorted(place.glob("*.yaml")):
        yield from _numbers(path, read_spec_file(path).data)


def frame(found: Iterable[Beside]) -> pd.DataFrame:
    """One row a pair of numbers: what ``published.csv`` holds."""
    return pd.DataFrame(
        [
            {
                "experiment": one.ours.experiment,
                "measure": one.ours.measure.key,
                "dialect": one.ours.dialect,
                "unit": one.ours.measure.unit,
                "n": one.ours.summary.n,
                "mean": one.ours.summary.mean,
                "std": one.ours.summary.std,
                "published_mean": one.theirs.mean,
                "published_std": one.theirs.std,
                "published_n": one.theirs.n or np.nan,
                "assumed_n": one.theirs.summary.n,
                "difference": one.difference.mean,
                "low95": one.difference.low,
                "high95": one.difference.high,
                "p": one.difference.p,
                "source": one.theirs.source,
                "place": one.theirs.place,
                "data": one.ours.data,
            }
            for one in found
        ]
    )


def matches(settings: Mapping[str, Any], number: Published) -> bool:
    """Whether a run with these settings (flat, by dotted name) is what ``number`` is of."""
    return bool(settings) and all(
        settings.get(key) in (value if isinstance(value, list) else [value]) for key, value in number.settings.items()
    )


def _numbers(path: Path, data: Mapping[str, Any]) -> Iterator[Published]:
    for key, kind in NEEDED.items():
        if not isinstance(data.get(key), kind):
            raise UserError(f"{path}: {key!r} is missing or not {kind.__name__}")
    if unknown := data.keys() - ALLOWED:
        raise UserError(f"{path}: {sorted(unknown)[0]!r} is not a key of published numbers")
    common = dict(data.get("settings") or {})
    for number, cell in enumerate(data["cells"]):
        if not isinstance(cell, Mapping) or not isinstance(cell.get("settings"), Mapping):
            raise UserError(f"{path}: cells[{number}]: needs settings, and a number a measure")
        for key, value in cell.items():
            if key != "settings":
                mean, std = _mean_std(path, number, key, value)
                yield Published(
                    source=data["source"],
                    place=data["place"],
                    settings=common | dict(cell["settings"]),
                    measure=BY_KEY[key],
                    dialect=str(data.get("dialect", "from-learned")) if len(BY_KEY[key].dialects) > 1 else "",
                    mean=mean,
                    std=std,
                    n=int(data.get("seeds") or 0),
                    assumed=int(data.get("assumed_seeds") or 0),
                )


def _mean_std(path: Path, number: int, key: str, value: object) -> tuple[float, float]:
    if key not in BY_KEY:
        raise UserError(f"{path}: cells[{number}]: there is no measure {key!r}")
    pair: Sequence[Any] = value if isinstance(value, list) else [value, np.nan]
    if len(pair) != 2 or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in pair):
        raise UserError(f"{path}: cells[{number}]: {key} is a mean, or [mean, standard deviation]")
    return float(pair[0]), float(pair[1])
