"""The HTML page: what the template shows, made from the frames and figures."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.colors import to_hex

from acn_cl import stats
from acn_cl.metrics import DIALECTS
from acn_cl.reports import curves, figures, labels, words
from acn_cl.reports.comparisons import Comparison
from acn_cl.reports.confusion import confusions
from acn_cl.reports.drawings import Drawing
from acn_cl.reports.measures import COMPARED, DIALECT_NOTES, MEASURES
from acn_cl.reports.noise import Noise
from acn_cl.reports.published import Beside
from acn_cl.reports.results import Result, Results
from acn_cl.runs.load import Run, Runs
from acn_cl.spec import flatten

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Cell:
    """One number of a table: what is shown, what is sorted by, what the tooltip says."""

    text: str
    value: float
    tip: str
    dialect: str = ""


@dataclass(frozen=True)
class Made:
    """How a report was made: the command, and what of it verification needs."""

    command: str
    folders: tuple[str, ...]
    out: str
    equivalence: float
    version: str


def render(
    runs: Runs,
    results: Results,
    comparisons: Sequence[Comparison],
    noise: Noise,
    published: Sequence[Beside],
    drawings: Sequence[Drawing],
    made: Made,
) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["formula"] = _formula
    environment.filters["from_here"] = _from_here
    environment.filters["yaml"] = _yaml
    names = labels.labels(runs)
    shared, differing = _settings(runs)
    return environment.get_template("report.html").render(
        runs=runs,
        names=names,
        looks=labels.looks(runs),
        series={colour: number for number, colour in enumerate([labels.NEUTRAL, *labels.COLOURS])},
        axes={run.experiment: labels.axes(run) for run in runs.runs},
        axis_names=list(dict.fromkeys(key for run in runs.runs for key in labels.axes(run))),
        streams=_streams(runs),
        imported=[run for run in runs.runs if run.imported],
        class_incremental=any(run.scenario == "class-incremental" for run in runs.runs),
        measures=MEASURES,
        compared=COMPARED,
        dialects=DIALECTS,
        dialect_notes=DIALECT_NOTES,
        cells=_cells(results),
        seeds={name: [run.seed for run in runs.finished(name)] for name in runs.experiments},
        declared=_families([c for c in comparisons if c.declared]),
        families=_families([c for c in comparisons if not c.declared]),
        margin=made.equivalence,
        noise=noise,
        published=published,
        verdict=lambda c: _verdict(c, labels.representatives(runs)),
        words=words,
        stats=stats,
        drawings=drawings,
        matrices=_matrices(runs),
        confusions=_confusions(runs),
        other_images=_other_images(runs),
        palette=_palette(),
        shared=shared,
        differing=differing,
        provenance=[_facts(run) for run in runs.runs],
        versions=_versions(runs),
        undefined=results.undefined,
        command=made.command,
        made={**asdict(made), "runs": _checksums(runs)},
    )


def _streams(runs: Runs) -> list[str]:
    own = [run for run in runs.runs if not run.imported] or runs.runs
    return list(dict.fromkeys(labels.stream(run) for run in own))


def _checksums(runs: Runs) -> list[dict[str, Any]]:
    return [{"experiment": run.experiment, "seed": run.seed, "data": run.checksum} for run in runs.runs]


def _cells(results: Results) -> dict[tuple[str, str], list[Cell]]:
    """By (experiment, measure): one cell, or one a dialect."""
    return {
        (experiment, measure.key): [_cell(result) for result in results.dialects(experiment, measure)]
        for experiment in results.experiments
        for measure in MEASURES
    }


def _cell(result: Result) -> Cell:
    unit, summary = result.measure.unit, result.summary
    by_seed = ", ".join(f"{s}: {words.number(v, unit)}" for s, v in zip(result.seeds, result.values, strict=True))
    interval = f"95 % interval {words.interval(summary, unit)}; " if summary.n > 1 else ""
    bootstrap = words.bootstrap(result)
    tip = result.undefined or f"{interval}{bootstrap}n = {summary.n}; by seed {by_seed}; data {result.data}"
    return Cell(words.mean_std(summary, unit), summary.mean, tip, result.dialect)


def _matrices(runs: Runs) -> dict[str, dict[str, Any]]:
    """Mean and spread of each experiment's matrix in percent, as nested lists; None where not evaluated."""
    found = {}
    for experiment in runs.experiments:
        if done := runs.finished(experiment):
            R = 100 * curves.cubes(done)[..., -1]
            n, T = R.shape[:2]
            mean, std, _ = (part.reshape(T, T) for part in stats.band(R.reshape(n, T * T)))
            found[experiment] = {"n": n, "mean": _nested(mean), "std": _nested(std)}
    return found


def _confusions(runs: Runs) -> dict[str, dict[str, Any]]:
    """The same of each experiment's confusion between experiences."""
    return {
        name: {"n": len(one.seeds), "mean": _nested(one.mean), "std": _nested(one.std)}
        for name, one in confusions(runs).items()
    }


def _other_images(runs: Runs) -> dict[str, dict[str, list[int]]]:
    """Experiments whose finished runs were not all on the same images: seeds by the data set's checksum."""
    found: dict[str, dict[str, list[int]]] = {}
    for experiment in runs.experiments:
        seeds: dict[str, list[int]] = {}
        for run in runs.finished(experiment):
            if run.data_checksum:
                seeds.setdefault(run.data_checksum[:12], []).append(run.seed)
        if len(seeds) > 1:
            found[experiment] = seeds
    return found


def _nested(matrix: np.ndarray[Any, Any]) -> list[list[float | None]]:
    return [[round(float(x), 2) if np.isfinite(x) else None for x in row] for row in matrix]


def _palette() -> list[dict[str, Any]]:
    """Background and ink of the cells 0..100, sequential and diverging."""
    sequential, diverging = mpl.colormaps[figures.SEQUENTIAL], mpl.colormaps[figures.DIVERGING]
    return [
        {
            "step": step,
            "sequential": to_hex(sequential(step / 100)),
            "on_sequential": figures.contrasting(sequential(step / 100)),
            "diverging": to_hex(diverging(step / 100)),
            "on_diverging": figures.contrasting(diverging(step / 100)),
        }
        for step in range(101)
    ]


def _settings(runs: Runs) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings that all experiments share, and the others: by setting, its value in each experiment that has it."""
    own = {name: run for name, run in labels.representatives(runs).items() if not run.imported}
    flat = {experiment: flatten(run.settings) for experiment, run in own.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings if key not in ("seeds", "about"))
    by_key = {key: {name: settings[key] for name, settings in flat.items() if key in settings} for key in keys}
    shared = {
        key: next(iter(found.values()))
        for key, found in by_key.items()
        if len(found) == len(flat) and len({repr(value) for value in found.values()}) == 1
    }
    return shared, {key: found for key, found in by_key.items() if key not in shared}


def _versions(runs: Runs) -> dict[str, list[Run]]:
    """Which runs were made with which versions of what."""
    found: dict[str, list[Run]] = {}
    for run in runs.runs:
        text = ", ".join(f"{name} {version}" for name, version in (run.spec.get("versions") or {}).items())
        if not run.imported:
            found.setdefault(text or "not recorded", []).append(run)
    return found


def _families(comparisons: Sequence[Comparison]) -> dict[str, list[list[Comparison]]]:
    """By factor: one list a (measure, dialect)."""
    families: dict[str, dict[tuple[str, str], list[Comparison]]] = {}
    for comparison in comparisons:
        family = families.setdefault(comparison.factor, {})
        family.setdefault((comparison.measure.key, comparison.dialect), []).append(comparison)
    return {factor: list(family.values()) for factor, family in families.items()}


def _verdict(comparison: Comparison, runs: Mapping[str, Run]) -> tuple[str, str]:
    """What both experiments share, and the sentence about the two."""
    shared, a, b = labels.pair(runs[comparison.a], runs[comparison.b])
    return shared, words.verdict(comparison, a, b)


def _formula(text: str) -> Markup:
    """Plain text with its subscripts set: ``Σ_{j<T}``, ``R_j``."""
    return Markup(re.sub(r"_(?:\{([^}]*)\}|(\w))", r"<sub>\1\2</sub>", str(escape(text))))


def _yaml(value: Any) -> str:
    """A setting as a recipe writes it: ``null``, ``true``, ``1e+06``."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(run: Run) -> dict[str, Any]:
    """Where a run came from; what its spec does not say is left out."""
    keys = ("commit", "device", "precision", "threads", "stack", "created", "data_checksum")
    facts = {key: run.spec[key] for key in keys if run.spec.get(key) is not None}
    notes = run.spec.get("notes")
    state = f"imported{f', {notes}' if notes else ''}" if run.imported else run.status.state
    own = {"experiment": run.experiment, "seed": run.seed, "state": state, "data": run.checksum[:12]}
    return {**own, "path": _from_here(run.path), **facts}


def _from_here(path: Path) -> str:
    """From the current folder where that is possible: a report is passed on, and says nothing of its author's disk."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
