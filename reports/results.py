"""The report's numbers: every measure of every experiment, over its finished seeds.

All formats (HTML, CSV, Markdown, LaTeX, figures) print these. The formulas are in :mod:`acn_cl.metrics`, the statistics
in :mod:`acn_cl.stats`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd

from acn_cl import stats
from acn_cl.metrics import Floats
from acn_cl.reports.measures import MEASURES, Measure
from acn_cl.runs.load import Run, Runs


@dataclass(frozen=True, eq=False)
class Result:
    """One measure of one experiment.

    Attributes:
        experiment: its id.
        measure: which.
        dialect: of forgetting, or "".
        seeds: the finished ones.
        values: one a seed in the report's unit, ``(n,)``.
        checksums: of the runs' data, one a seed.
        images: checksums of the data sets that the runs were trained and tested on, as far as they recorded them.
        undefined: why there is no number, or "". A measure undefined for one seed has none: half a sample is not one.
    """

    experiment: str
    measure: Measure
    dialect: str
    seeds: tuple[int, ...]
    values: Floats
    checksums: tuple[str, ...] = ()
    images: frozenset[str] = frozenset()
    undefined: str = ""

    @property
    def data(self) -> str:
        """Short checksum of all that the number was computed from."""
        return digest(self.checksums)

    @cached_property
    def summary(self) -> stats.Summary:
        """Over seeds; all nan where the measure is undefined."""
        if self.undefined:
            return stats.Summary(len(self.seeds), np.nan, np.nan, np.nan, np.nan)
        return stats.summarise(self.values)

    @cached_property
    def bootstrap(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean; nan with few seeds (``stats.BOOTSTRAP_FROM``)."""
        return (np.nan, np.nan) if self.undefined else stats.bootstrap_interval(self.values)


class Results:
    """All results of one report, in the order of experiments and measures.

    Args:
        runs: of which the finished ones count.
    """

    def __init__(self, runs: Runs) -> None:
        self._all = {
            (experiment, measure.key, dialect): _result(done, measure, dialect, runs)
            for experiment in runs.experiments
            if (done := runs.finished(experiment))
            for measure in MEASURES
            for dialect in measure.dialects
        }

    def __iter__(self) -> Iterator[Result]:
        return iter(self._all.values())

    def of(self, experiment: str, measure: str, dialect: str = "") -> Result:
        """One of them."""
        return self._all[experiment, measure, dialect]

    def any_of(self, experiment: str) -> Result:
        """One of an experiment's, for what all of them share: its seeds and their data."""
        return self.dialects(experiment, MEASURES[0])[0]

    def dialects(self, experiment: str, measure: Measure) -> list[Result]:
        """The results of one measure in all its dialects."""
        return [self._all[experiment, measure.key, dialect] for dialect in measure.dialects]

    @cached_property
    def experiments(self) -> list[str]:
        """Those with a finished run."""
        return list(dict.fromkeys(result.experiment for result in self))

    @cached_property
    def undefined(self) -> dict[str, str]:
        """Keys of the measures that no experiment has, and the first reason."""
        reasons: dict[str, str] = {}
        for result in self:
            reasons.setdefault(result.measure.key, result.undefined)
        return {key: reason for key, reason in reasons.items() if reason and not self._is_defined(key)}

    def _is_defined(self, measure: str) -> bool:
        return any(result.measure.key == measure and not result.undefined for result in self)

    def frame(self) -> pd.DataFrame:
        """One row a result: what ``results.csv`` holds."""
        rows = [
            {
                "experiment": result.experiment,
                "measure": result.measure.key,
                "dialect": result.dialect,
                "unit": result.measure.unit,
                "n": result.summary.n,
                "mean": result.summary.mean,
                "std": result.summary.std,
                "low95": result.summary.low,
                "high95": result.summary.high,
                "bootstrap_low95": result.bootstrap[0],
                "bootstrap_high95": result.bootstrap[1],
                "seeds": " ".join(map(str, result.seeds)),
                "data": result.data,
                "undefined": result.undefined,
            }
            for result in self
        ]
        return pd.DataFrame(rows)

    def seeds_frame(self) -> pd.DataFrame:
        """One row a (result, seed): what ``seeds.csv`` holds."""
        rows = [
            {
                "experiment": result.experiment,
                "seed": seed,
                "measure": result.measure.key,
                "dialect": result.dialect,
                "unit": result.measure.unit,
                "value": value,
                "data": checksum,
            }
            for result in self
            for seed, value, checksum in zip(result.seeds, result.values, result.checksums, strict=True)
        ]
        return pd.DataFrame(rows)


def digest(checksums: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of checksums, one a line: short enough for a table."""
    return sha256("".join(f"{checksum}\n" for checksum in checksums).encode()).hexdigest()[:12]


def _result(done: list[Run], measure: Measure, dialect: str, runs: Runs) -> Result:
    values, reasons = np.full(len(done), np.nan), []
    for i, run in enumerate(done):
        try:
            values[i] = measure.of(run, dialect, runs)
        except ValueError as reason:
            reasons.append(str(reason))
    seeds = tuple(run.seed for run in done)
    checksums = tuple(_checksum(run, measure, runs) for run in done)
    images = frozenset(run.data_checksum for run in done if run.data_checksum)
    return Result(done[0].experiment, measure, dialect, seeds, values, checksums, images, next(iter(reasons), ""))


def _checksum(run: Run, measure: Measure, runs: Runs) -> str:
    """Of the run's data, and of its reference's where the measure has one."""
    try:
        return digest([run.checksum, measure.reference(run, runs).checksum]) if measure.reference else run.checksum
    except ValueError:  # it has none, and the measure no number
        return run.checksum
