"""Accuracy under noise, of runs whose recipe asked for it (``corruptions``)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from acn_cl.reports.results import Results
from acn_cl.runs.load import Run, Runs
from acn_cl.stats import Summary, summarise

Noise = dict[str, dict[str, Summary]]
"""By experiment and condition, ``clean`` first: average accuracy (%) after the last experience; nan where not tested.
Empty where no run was tested under noise."""


def under_noise(runs: Runs) -> Noise:
    """Every finished experiment under every condition that any of them was tested under."""
    finished = {experiment: done for experiment in runs.experiments if (done := runs.finished(experiment))}
    conditions = dict.fromkeys(name for done in finished.values() for run in done for name in run.conditions)
    if not conditions:
        return {}
    return {
        experiment: {name: _summary(done, name) for name in ("clean", *conditions)}
        for experiment, done in finished.items()
    }


def frame(noise: Noise, results: Results) -> pd.DataFrame:
    """One row an (experiment, condition): what ``noise.csv`` holds; ``results`` know the seeds and their data."""
    rows = [
        {
            "experiment": experiment,
            "condition": condition,
            "unit": "%",
            "n": summary.n,
            "mean": summary.mean,
            "std": summary.std,
            "low95": summary.low,
            "high95": summary.high,
            "seeds": " ".join(map(str, results.of(experiment, "average_accuracy").seeds)),
            "data": results.of(experiment, "average_accuracy").data,
        }
        for experiment, by_condition in noise.items()
        for condition, summary in by_condition.items()
    ]
    return pd.DataFrame(rows)


def _summary(done: Sequence[Run], condition: str) -> Summary:
    values = np.array([100 * run.final(condition)[:, -1].mean() for run in done])
    if np.isfinite(values).all():
        return summarise(values)
    return Summary(len(done), np.nan, np.nan, np.nan, np.nan)
