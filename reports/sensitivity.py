"""How a measure changes with one number that a recipe varies: λ, a learning rate, the depth of the network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from acn_cl.reports import labels
from acn_cl.reports.curves import Curve
from acn_cl.reports.results import Results
from acn_cl.runs.load import Run, Runs
from acn_cl.spec import flatten, is_inert


@dataclass(frozen=True)
class Sweep:
    """Experiments that differ in one number only.

    Attributes:
        setting: its dotted name.
        stream: on which they ran.
        name: what they share, as a line's label.
        values: the number, rising, and
        experiments: the experiment of each.
    """

    setting: str
    stream: str
    name: str
    values: tuple[float, ...]
    experiments: tuple[str, ...]


def sweeps(runs: Runs) -> Iterator[Sweep]:
    """Every group of finished experiments that are alike but for one number, which takes at least three values."""
    finished = [run for run in labels.representatives(runs).values() if runs.finished(run.experiment)]
    flat = [{key: v for key, v in flatten(run.settings).items() if not is_inert(key)} for run in finished]
    for setting in dict.fromkeys(key for settings in flat for key in settings):
        groups: dict[str, dict[float, Run]] = {}
        for run, settings in zip(finished, flat, strict=True):
            value = settings.get(setting)
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = sorted((key, repr(v)) for key, v in settings.items() if key != setting)
                groups.setdefault(repr(rest), {})[value] = run
        for group in groups.values():
            if len(group) >= 3:
                first, values = next(iter(group.values())), sorted(group)
                name = labels.without(first, setting)
                members = tuple(group[value].experiment for value in values)
                yield Sweep(setting, labels.stream(first), name, tuple(values), members)


def curve(results: Results, sweep: Sweep, measure: str, dialect: str) -> Curve | None:
    """A measure along a sweep, on the seeds that all its experiments finished; None where there is none."""
    found = [results.of(experiment, measure, dialect) for experiment in sweep.experiments]
    seeds = _common([result.seeds for result in found])
    if not seeds or any(result.undefined for result in found):
        return None
    by_seed = [dict(zip(result.seeds, result.values, strict=True)) for result in found]
    return Curve(np.array(sweep.values), np.array([[values[seed] for values in by_seed] for seed in seeds]))


def _common(seeds: Sequence[Sequence[int]]) -> list[int]:
    return [seed for seed in seeds[0] if all(seed in others for others in seeds)]
