"""Paired comparisons: experiments that differ in one setting, seed by seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from acn_cl import stats
from acn_cl.errors import UserError
from acn_cl.reports.measures import COMPARED, Measure
from acn_cl.reports.results import Result, Results
from acn_cl.runs.load import Run, Runs, flatten, is_the_experiment


@dataclass(frozen=True)
class Comparison:
    """Two experiments on the seeds that both finished.

    Attributes:
        measure, dialect: what is compared.
        factor: the setting in which the two differ, by its dotted name.
        a, b: their ids.
        seeds: common to both.
        paired: the tests of a - b in the report's unit; None where there is nothing to compare.
        p: of the paired t test, Holm-corrected over the family: the same factor, measure and dialect.
        family: the number of tests in it.
    """

    measure: Measure
    dialect: str
    factor: str
    a: str
    b: str
    seeds: tuple[int, ...]
    paired: stats.Paired | None
    p: float = np.nan
    family: int = 0

    @property
    def decided(self) -> bool:
        """Whether the test found a difference."""
        return bool(self.p < stats.LEVEL)


def compare_all(runs: Runs, results: Results) -> list[Comparison]:
    """Every pair that differs in one setting, by every compared measure and dialect; Holm-corrected by family."""
    families: dict[str, list[tuple[str, str]]] = {}
    for factor, a, b in one_factor_pairs(runs):
        families.setdefault(factor, []).append((a, b))
    return [found for factor, pairs in sorted(families.items()) for found in _family(factor, pairs, results, results)]


def compare(a: Runs, b: Runs) -> list[Comparison]:
    """The experiments of the same id in two stores, seed by seed, as before and after a change.

    One experiment on each side is compared whatever the two are called. Holm-corrected over the experiments.

    Raises:
        UserError: no experiment that finished on both sides has the same id.
    """
    first, second = Results(a), Results(b)
    pairs = [(name, name) for name in first.experiments if name in second.experiments]
    if len(first.experiments) == len(second.experiments) == 1:
        pairs = [(first.experiments[0], second.experiments[0])]
    if not pairs:
        sides = [", ".join(side.experiments) or "none" for side in (first, second)]
        raise UserError(f"no finished experiment in common: on one side {sides[0]}; on the other {sides[1]}")
    return _family("runs", pairs, first, second)


def _family(factor: str, pairs: Sequence[tuple[str, str]], first: Results, second: Results) -> list[Comparison]:
    return [
        comparison
        for measure in COMPARED
        for dialect in measure.dialects
        for comparison in _corrected(
            [
                _comparison(factor, first.of(a, measure.key, dialect), second.of(b, measure.key, dialect))
                for a, b in pairs
            ]
        )
    ]


def one_factor_pairs(runs: Runs) -> Iterator[tuple[str, str, str]]:
    """(factor, a, b) for all pairs of finished experiments that differ in one setting and share their stream."""
    first = {experiment: done[0] for experiment in runs.experiments if (done := runs.finished(experiment))}
    for a, b in combinations(first, 2):
        if factor := _factor(first[a], first[b]):
            yield factor, a, b


def _factor(a: Run, b: Run) -> str | None:
    """The one axis (without axes: setting, or section) in which two experiments differ; None: more than one."""
    axes = _differing(a.spec.get("axes") or {}, b.spec.get("axes") or {})
    settings = set(filter(is_the_experiment, _differing(flatten(a.settings), flatten(b.settings))))
    sections = {key.split(".")[0] for key in settings}
    if len(axes) > 1 or len(sections) != 1 or "stream" in sections:
        return None
    return next(iter(axes or (settings if len(settings) == 1 else sections)))


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> set[str]:
    return {key for key in {**a, **b} if a.get(key) != b.get(key)}


def _comparison(factor: str, a: Result, b: Result) -> Comparison:
    first, second = (dict(zip(side.seeds, side.values, strict=True)) for side in (a, b))
    seeds = tuple(seed for seed in first if seed in second and np.isfinite([first[seed], second[seed]]).all())
    paired = stats.compare([first[s] for s in seeds], [second[s] for s in seeds]) if seeds else None
    return Comparison(a.measure, a.dialect, factor, a.experiment, b.experiment, seeds, paired)


def _corrected(family: list[Comparison]) -> list[Comparison]:
    raw = np.array([comparison.paired.p if comparison.paired else np.nan for comparison in family])
    size = int(np.sum(~np.isnan(raw)))
    return [replace(comparison, p=float(p), family=size) for comparison, p in zip(family, stats.holm(raw), strict=True)]
