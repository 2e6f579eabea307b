"""Confusion between experiences, of class-incremental runs: whose classes the images of each were taken for."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from acn_cl import stats
from acn_cl.metrics import Floats
from acn_cl.reports.results import digest
from acn_cl.runs.load import Runs


@dataclass(frozen=True, eq=False)
class Confusion:
    """One experiment's, at the end of the stream.

    Attributes:
        seeds: the finished ones.
        shares: ``(n, T, T)`` in percent; ``[:, j, k]``: of the test images of experience j, those that were taken for a
            class of experience k.
        data: short checksum of the runs.
    """

    seeds: tuple[int, ...]
    shares: Floats
    data: str

    @property
    def mean(self) -> Floats:
        """Over seeds, ``(T, T)``."""
        mean: Floats = self.shares.mean(axis=0)
        return mean

    @property
    def std(self) -> Floats:
        """Sample standard deviation over seeds, ``(T, T)``; NaN of one seed."""
        n, T = self.shares.shape[:2]
        return stats.band(self.shares.reshape(n, T * T))[1].reshape(T, T)


def confusions(runs: Runs) -> dict[str, Confusion]:
    """By experiment; those whose finished runs have not all recorded it, for every experience, are left out."""
    found = {}
    for experiment in runs.experiments:
        done = runs.finished(experiment)
        last = [run.answers[-1] for run in done if len(run.answers)]
        if not done or len(last) < len(done) or len({len(counts) for counts in last}) > 1:
            continue
        images = np.stack(last).sum(axis=-1, keepdims=True)
        if (images > 0).all():
            seeds = tuple(run.seed for run in done)
            shares = 100 * np.stack(last) / images
            found[experiment] = Confusion(seeds, shares, digest([run.checksum for run in done]))
    return found


def frame(found: dict[str, Confusion]) -> pd.DataFrame:
    """One row an (experiment, experience tested, experience answered), both from 1: what ``confusion.csv`` holds."""
    rows = [
        {
            "experiment": experiment,
            "tested": j + 1,
            "answered": k + 1,
            "unit": "%",
            "n": len(one.seeds),
            "mean": mean,
            "std": one.std[j, k],
            "seeds": " ".join(map(str, one.seeds)),
            "data": one.data,
        }
        for experiment, one in found.items()
        for (j, k), mean in np.ndenumerate(one.mean)
    ]
    return pd.DataFrame(rows)
