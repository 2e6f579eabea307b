"""What the figures draw: one number a seed and a position, per experiment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from acn_cl import metrics, stats
from acn_cl.metrics import Dialect, Floats
from acn_cl.reports import measures
from acn_cl.runs.load import Run, Runs


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over seeds along one axis.

    Attributes:
        x: positions, ``(k,)``.
        seeds: values in the figure's unit, ``(n, k)``.
    """

    x: Floats
    seeds: Floats

    @property
    def band(self) -> tuple[Floats, Floats, Floats]:
        """Mean, standard deviation and half-width of the 95 % interval, each ``(k,)``."""
        return stats.band(self.seeds)


Curves = dict[str, Curve]
"""By experiment; one for which the measure is not defined is left out."""


def accuracy_so_far(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Accuracy on the experiences seen (%), after each experience 1..T."""
    return _each(runs, experiments, lambda done: 100 * metrics.accuracy_so_far(cubes(done)[..., -1]), start=1)


def forgetting_by_age(runs: Runs, experiments: Sequence[str], dialect: Dialect) -> Curves:
    """Mean forgetting (%), 1..T-1 experiences after an experience was learned."""
    return _each(runs, experiments, lambda done: 100 * metrics.forgetting_by_age(cubes(done)[..., -1], dialect), 1)


def accuracy_by_depth(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Average accuracy at the end of the stream (%), of sub-networks 0..L."""
    return _each(runs, experiments, lambda done: 100 * metrics.average_accuracy(_depths(done)))


def forgetting_by_depth(runs: Runs, experiments: Sequence[str], dialect: Dialect) -> Curves:
    """Average forgetting (%) of sub-networks 0..L."""
    return _each(runs, experiments, lambda done: 100 * metrics.average_forgetting(_depths(done), dialect))


def depth_so_far(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Effective depth of the accuracy on the experiences seen, after each experience 1..T."""
    return _each(runs, experiments, lambda done: _by_run(done, measures.depth_so_far), start=1)


def depth_when_learned(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Effective depth of each experience 1..T alone, right after it was learned."""
    return _each(runs, experiments, lambda done: _by_run(done, partial(measures.depth_of_each, at_end=False)), start=1)


def depth_at_end(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Effective depth of each experience 1..T alone, at the end of the stream."""
    return _each(runs, experiments, lambda done: _by_run(done, partial(measures.depth_of_each, at_end=True)), start=1)


def accuracy_by_flops(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Average accuracy at the end of the stream (%) of sub-networks 0..L, against their operations (MFLOP)."""
    found = {}
    for name, curve in accuracy_by_depth(runs, experiments).items():
        try:
            found[name] = Curve(measures.flops(runs.finished(name)[0]) / 1e6, curve.seeds)
        except ValueError:  # not recorded
            continue
    return found


def at_end_of_experiences(runs: Runs, experiments: Sequence[str], quantity: str) -> Curves:
    """A quantity of the layers 0..L+1 that is measured at the end of every experience: mean over experiences.

    Layers for which it is not defined are left out of the line.
    """

    def means(run: Run) -> Floats:
        rows = run.layers[(run.layers["quantity"] == quantity) & (run.layers["epoch"] == -1)]
        if rows.empty:
            raise ValueError("not recorded")
        by_layer = rows.groupby("layer")["value"].mean()
        return by_layer.reindex(range(run.by_depth.shape[-1] + 1)).to_numpy(dtype=np.float64)

    return _each(runs, experiments, lambda done: _by_run(done, means))


def at_the_end(runs: Runs, experiments: Sequence[str], quantity: str) -> Curves:
    """The same at the end of the stream alone."""

    def last(run: Run) -> Floats:
        rows = run.layers[(run.layers["quantity"] == quantity) & (run.layers["epoch"] == -1)]
        rows = rows[rows["trained"] == len(run.by_depth) - 1]
        if rows.empty:
            raise ValueError("not recorded")
        by_layer = rows.set_index("layer")["value"]
        return by_layer.reindex(range(run.by_depth.shape[-1])).to_numpy(dtype=np.float64)

    return _each(runs, experiments, lambda done: _by_run(done, last))


def over_the_stream(runs: Runs, experiments: Sequence[str], quantity: str) -> Curves:
    """A quantity of the whole network's features, after each experience 2..T."""

    def course(run: Run) -> Floats:
        rows = run.layers[(run.layers["quantity"] == quantity) & (run.layers["epoch"] == -1)]
        rows = rows[rows["layer"] == run.by_depth.shape[-1] - 1]
        if rows.empty:
            raise ValueError("not recorded")
        values = rows.set_index("trained")["value"].reindex(range(1, len(run.by_depth)))
        return np.asarray(values, dtype=np.float64)

    return _each(runs, experiments, lambda done: _by_run(done, course), start=2)


def recency_bias(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Share of predictions that the newest experience gets beyond its due (points), after each experience 2..T."""
    return _each(runs, experiments, lambda done: 100 * _by_run(done, measures.recency_bias_so_far), start=2)


def gradient_by_epoch(done: Sequence[Run]) -> tuple[Floats, int]:
    """Norm of the loss's gradient, ``(layers, moments)``, mean over runs; and the epochs of an experience.

    Raises:
        ValueError: not recorded for every layer, epoch and experience, or not positive anywhere.
    """
    tables = []
    for run in done:
        rows = run.layers[(run.layers["quantity"] == "gradient_norm") & (run.layers["epoch"] >= 0)]
        tables.append(rows.pivot_table(index="layer", columns=["trained", "epoch"], values="value"))
    shapes = {table.shape for table in tables}
    if len(shapes) != 1 or tables[0].empty or any(table.isna().any(axis=None) for table in tables):
        raise ValueError("not recorded for every layer and epoch")
    mean: Floats = np.mean([table.to_numpy(dtype=np.float64) for table in tables], axis=0)
    if not (mean > 0).any():
        raise ValueError("nowhere positive")
    return mean, len(tables[0].columns.unique("epoch"))


def gradient_by_layer(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Norm of the loss's gradient by layer 0..L+1, mean over experiences and epochs."""

    def norms(run: Run) -> Floats:
        rows = run.layers[(run.layers["quantity"] == "gradient_norm") & (run.layers["epoch"] >= 0)]
        return _by_layer(rows)

    return _each(runs, experiments, lambda done: np.stack([norms(run) for run in done]))


def importance_by_layer(runs: Runs, experiments: Sequence[str]) -> Curves:
    """Share of each layer 0..L+1 in a regulariser's importance at the end of the stream (%)."""

    def shares(run: Run) -> Floats:
        rows = run.layers[(run.layers["quantity"] == "importance") & (run.layers["trained"] == len(run.by_depth) - 1)]
        mass = _by_layer(rows)
        if mass.min() < 0 or mass.sum() <= 0:
            raise ValueError("importance that is negative or nowhere has no shares")
        share: Floats = 100 * mass / mass.sum()
        return share

    return _each(runs, experiments, lambda done: np.stack([shares(run) for run in done]))


def _by_run(done: Sequence[Run], of: Callable[[Run], Any]) -> Floats:
    return np.array([of(run) for run in done], dtype=np.float64)


def cubes(done: Sequence[Run]) -> Floats:
    """Accuracy in 0..1 of runs by depth, ``(n, T, T, L+1)``; NaN where not evaluated."""
    return np.stack([run.by_depth for run in done])


def mean_matrix(done: Sequence[Run]) -> Floats:
    """R of the whole network in 0..1, mean over runs, ``(T, T)``."""
    mean: Floats = cubes(done)[..., -1].mean(axis=0)
    return mean


def _depths(done: Sequence[Run]) -> Floats:
    """R by depth as a batch of matrices, ``(n, L+1, T, T)``."""
    by_depth = np.moveaxis(cubes(done), -1, 1)
    if by_depth.shape[1] < 2:
        raise ValueError("only the whole network was tested")
    return by_depth


def _by_layer(rows: pd.DataFrame) -> Floats:
    means = rows.groupby("layer")["value"].mean()
    if means.empty or not np.isfinite(means).all():
        raise ValueError("not recorded for every layer")
    return means.to_numpy(dtype=np.float64)


def _each(runs: Runs, experiments: Sequence[str], measure: Callable[[Sequence[Run]], Floats], start: int = 0) -> Curves:
    curves: Curves = {}
    for experiment in experiments:
        if done := runs.finished(experiment):
            try:
                values = measure(done)
            except ValueError:  # not defined for this experiment; the tables give the reason
                continue
            curves[experiment] = Curve(np.arange(start, start + values.shape[1], dtype=np.float64), values)
    return curves
