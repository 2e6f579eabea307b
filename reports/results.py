"""The report's numbers: every measure of every experiment, over its finished seeds.

All formats (HTML, CSV, Markdown, LaTeX, figures) print these. The formulas are in :mod:`acn_cl.metrics`, the statistics
in :mod:`acn_cl.stats`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

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
        undefined: why there is no number, or "". A measure undefined for one seed has none: half a sample is not one.
    """

    experiment: str
    measure: Measure
    dialect: str
    seeds: tuple[int, ...]
    values: Floats
    undefined: str = ""

    @cached_property
    def summary(self) -> stats.Summary:
        """Over seeds; all nan where the measure is undefined."""
        if self.undefined:
            return stats.Summary(len(self.seeds), np.nan, np.nan, np.nan, np.nan)
        return stats.summarise(self.values)


class Results:
    """All results of one report, in the order of experiments and measures.

    Args:
        runs: of which the finished ones count.
    """

    def __init__(self, runs: Runs) -> None:
        self._all = {
            (experiment, measure.key, dialect): _result(done, measure, dialect)
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
                "seeds": " ".join(map(str, result.seeds)),
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
            }
            for result in self
            for seed, value in zip(result.seeds, result.values, strict=True)
        ]
        return pd.DataFrame(rows)


def _result(done: list[Run], measure: Measure, dialect: str) -> Result:
    values, reasons = np.full(len(done), np.nan), []
    for i, run in enumerate(done):
        try:
            values[i] = measure.of(run, dialect)
        except ValueError as reason:
            reasons.append(str(reason))
    seeds = tuple(run.seed for run in done)
    return Result(done[0].experiment, measure, dialect, seeds, values, next(iter(reasons), ""))
