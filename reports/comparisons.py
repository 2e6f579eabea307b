"""Paired comparisons, seed by seed: those that the recipe declares, and every pair that differs in one setting."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from acn_cl import stats
from acn_cl.errors import SpecError, UserError
from acn_cl.reports.measures import COMPARED, Measure
from acn_cl.reports.results import Result, Results, digest
from acn_cl.runs.declared import Declared, is_value, parse_comparisons
from acn_cl.runs.load import Run, Runs
from acn_cl.spec import flatten, is_inert


@dataclass(frozen=True)
class Comparison:
    """Two experiments on the seeds that both finished.

    Attributes:
        measure, dialect: what is compared.
        factor: the setting in which the two differ, by its dotted name; of a declared one, its recipe's name.
        a, b: their ids.
        seeds: common to both.
        paired: the tests of a - b in the report's unit; None where there is nothing to compare.
        p: of ``test``, Holm-corrected over the family: the recipe's declared comparisons, or else the same factor,
            measure and dialect.
        family: the number of tests in it.
        test: ``paired-t`` or ``sign-flip``.
        declared: whether the recipe declared it, and
        primary: as its main claim.
        late: finished runs of the two that were begun before it was declared.
        margin: of equivalence, in the report's unit; 0: not asked for.
        p_equivalent: of the two one-sided tests that a and b differ by less than the margin, corrected likewise.
        differences: a - b, one a seed.
        data: short checksum of the runs on both sides.
        images: how many different data sets, by checksum, the runs of both sides were trained and tested on; 0: not
            recorded.
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
    test: str = "paired-t"
    declared: bool = False
    primary: bool = False
    late: int = 0
    margin: float = 0.0
    p_equivalent: float = np.nan
    differences: tuple[float, ...] = ()
    data: str = ""
    images: int = 0

    @property
    def decided(self) -> bool:
        """Whether the test found a difference."""
        return bool(self.p < stats.LEVEL)

    @property
    def equivalent(self) -> bool:
        """Whether the test found that the difference is smaller than the margin."""
        return bool(self.p_equivalent < stats.LEVEL)


def compare_all(runs: Runs, results: Results, margin: float = 0.0) -> list[Comparison]:
    """What the recipes declare, then every pair that differs in one setting, by compared measure and dialect.

    Args:
        runs: which experiments differ in what, and what was declared.
        results: their numbers.
        margin: of equivalence, in the report's unit; 0: not tested.
    """
    families: dict[str, list[tuple[str, str]]] = {}
    for factor, a, b in one_factor_pairs(runs):
        families.setdefault(factor, []).append((a, b))
    found = list(_declared(runs, results, margin))
    for factor, pairs in sorted(families.items()):
        found += _family(factor, pairs, results, results, margin)
    return found


def compare(a: Runs, b: Runs, margin: float = 0.0) -> list[Comparison]:
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
    return _family("runs", pairs, first, second, margin)


def frame(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """One row a comparison: what ``comparisons.csv`` holds."""
    return pd.DataFrame([_row(comparison) for comparison in comparisons])


def _row(c: Comparison) -> dict[str, Any]:
    row: dict[str, Any] = {
        "declared": "primary" if c.primary else "yes" if c.declared else "no",
        "factor": c.factor,
        "measure": c.measure.key,
        "dialect": c.dialect,
        "unit": c.measure.unit,
        "a": c.a,
        "b": c.b,
        "n": len(c.seeds),
        "seeds": " ".join(map(str, c.seeds)),
    }
    if c.paired:
        d = c.paired.difference
        row |= {"difference": d.mean, "std": d.std, "low95": d.low, "high95": d.high}
        row |= {"p_t": c.paired.p, "p_sign_flip": c.paired.permutation_p, "smallest_p": c.paired.smallest_p}
        row |= {"effect": c.paired.effect, "detectable": c.paired.detectable}
    row |= {"test": c.test, "p_holm": c.p, "family": c.family}
    if c.margin:
        row |= {"margin": c.margin, "p_equivalent_holm": c.p_equivalent}
    return row | {"data": c.data}


def _declared(runs: Runs, results: Results, margin: float) -> Iterator[Comparison]:
    """The recipes' own comparisons, the primary ones first; one family a recipe."""
    done = {name: finished for name in runs.experiments if (finished := runs.finished(name))}
    recipes: dict[str, dict[str, list[Run]]] = {}
    for name, finished in done.items():
        if not finished[0].imported:
            recipes.setdefault(str(finished[0].settings.get("name", "")), {})[name] = finished
    for recipe, members in recipes.items():
        wanted: list[Declared] = []  # no set: a value of an axis may be a whole section
        for run in (run for finished in members.values() for run in finished):
            wanted += [one for one in _of(run) if one not in wanted]
        found = [
            _declared_pair(recipe, one, a, b, results, [*members[a], *members[b]])
            for one in sorted(wanted, key=lambda one: not one.primary)
            for a, b in _pairs_of(one, members)
        ]
        yield from _corrected(found, margin)


def _of(run: Run) -> tuple[Declared, ...]:
    try:
        return parse_comparisons(run.spec.get("comparisons") or ())
    except SpecError as error:
        raise UserError(f"{run.path / 'spec.json'}: {error}") from None


def _declared_pair(recipe: str, one: Declared, a: str, b: str, results: Results, members: Sequence[Run]) -> Comparison:
    pair = _comparison(recipe, results.of(a, one.measure, one.dialect), results.of(b, one.measure, one.dialect))
    late = sum(one not in _of(run) for run in members)
    return replace(pair, test=one.test, declared=True, primary=one.primary, late=late)


def _pairs_of(one: Declared, members: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, str]]:
    """The pairs of finished experiments that a declaration means."""
    if one.experiments:
        if all(name in members for name in one.experiments):
            yield one.experiments[0], one.experiments[1]
        return
    first = {name: finished[0].spec.get("axes") or {} for name, finished in members.items()}
    for a, axes in first.items():
        for b, others in first.items():
            rest = [{key: value for key, value in side.items() if key != one.axis} for side in (axes, others)]
            sides = zip((axes, others), one.values, strict=True)
            if rest[0] == rest[1] and all(is_value(side.get(one.axis), wanted) for side, wanted in sides):
                yield a, b


def _family(
    factor: str, pairs: Sequence[tuple[str, str]], first: Results, second: Results, margin: float
) -> list[Comparison]:
    return [
        comparison
        for measure in COMPARED
        for dialect in measure.dialects
        for comparison in _corrected(
            [
                _comparison(factor, first.of(a, measure.key, dialect), second.of(b, measure.key, dialect))
                for a, b in pairs
            ],
            margin,
        )
    ]


def one_factor_pairs(runs: Runs) -> Iterator[tuple[str, str, str]]:
    """(factor, a, b) for all pairs of finished experiments that differ in one setting and share their stream."""
    first = {name: done[0] for name in runs.experiments if (done := runs.finished(name)) and not done[0].imported}
    for a, b in combinations(first, 2):
        if factor := _factor(first[a], first[b]):
            yield factor, a, b


def _factor(a: Run, b: Run) -> str | None:
    """The one axis (without axes: setting, or section) in which two experiments differ; None: more than one."""
    axes = _differing(a.spec.get("axes") or {}, b.spec.get("axes") or {})
    settings = {key for key in _differing(flatten(a.settings), flatten(b.settings)) if not is_inert(key)}
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
    differences = tuple(first[s] - second[s] for s in seeds)
    data = digest([*a.checksums, *b.checksums])
    names = (a.experiment, b.experiment)
    images = len(a.images | b.images)
    return Comparison(
        a.measure, a.dialect, factor, *names, seeds, paired, differences=differences, data=data, images=images
    )


def _corrected(family: list[Comparison], margin: float) -> list[Comparison]:
    """A family with Holm's correction of its tests, and of those of equivalence if they are asked for."""
    raw = np.array([_p(comparison) for comparison in family])
    size = int(np.sum(~np.isnan(raw)))
    alike = stats.holm([_p_equivalent(comparison, margin) for comparison in family])
    return [
        replace(comparison, p=float(p), family=size, margin=margin, p_equivalent=float(equivalent))
        for comparison, p, equivalent in zip(family, stats.holm(raw), alike, strict=True)
    ]


def _p(comparison: Comparison) -> float:
    if comparison.paired is None:
        return np.nan
    return comparison.paired.permutation_p if comparison.test == "sign-flip" else comparison.paired.p


def _p_equivalent(comparison: Comparison, margin: float) -> float:
    if not comparison.differences or margin <= 0:
        return np.nan
    return stats.equivalence(comparison.differences, np.zeros(len(comparison.differences)), margin)
