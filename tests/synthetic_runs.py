"""Run folders made up by the schema, for tests of whatever reads them. No torch, no training: seconds for hundreds.

Tests load this file by its path (pytest's importlib mode has no test package):

    synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acn_cl.runs.schema import ACCURACY, CONFUSION, LAYERS, TIMING

SAMPLES = 100


def accuracy_by_depth(
    seed: int, *, experiences: int = 4, depth: int = 3, forgets: float = 0.3, compresses: bool = False
) -> np.ndarray:
    """A plausible R by depth, ``(T, T, L+1)``, in hundredths; NaN above the diagonal.

    Args:
        seed: of the noise, which has a part that all experiments of a seed share.
        experiences: T.
        depth: L.
        forgets: how far an experience falls in the end.
        compresses: whether the first layers already do the work, as in an ACN.
    """
    shared = np.random.default_rng(seed).normal(0, 0.03, (experiences, experiences))
    own = np.random.default_rng([seed, round(forgets * 1000)]).normal(0, 0.01, (experiences, experiences))
    age = np.subtract.outer(np.arange(experiences), np.arange(experiences))
    full = 0.9 - forgets * (1 - np.exp(-np.maximum(age, 0) / 2)) + shared + own
    share = np.linspace(0, 1, depth + 1)
    rise = 1 - np.exp(-8 * share) if compresses else share**2
    cube = 0.5 + (full[..., None] - 0.5) * rise / rise[-1]
    cube[age < 0] = np.nan
    return np.round(np.clip(cube, 0, 1), 2)


def accuracy_rows(cube: np.ndarray, step: int = -1, trained: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Rows of ``accuracy.parquet`` for R by depth ``(moments, T, L+1)``."""
    moments = range(cube.shape[0]) if trained is None else trained
    return [
        {
            "trained": moment,
            "step": step,
            "evaluated": j,
            "part": "test",
            "condition": "clean",
            "depth": k,
            "accuracy": float(cube[t, j, k]),
            "loss": 1 - float(cube[t, j, k]),
            "samples": SAMPLES,
        }
        for t, moment in enumerate(moments)
        for j in range(cube.shape[1])
        for k in range(cube.shape[2])
        if not np.isnan(cube[t, j, k])
    ]


def write_run(
    folder: Path,
    experiment: str,
    seed: int,
    *,
    axes: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    state: str = "done",
    error: str | None = None,
    experiences: int = 4,
    depth: int = 3,
    scenario: str = "task-incremental",
    forgets: float = 0.3,
    compresses: bool = False,
    extra: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any]] = (),
    answers: np.ndarray | None = None,
) -> Path:
    """Write ``folder/<experiment>/seed-<n>/`` and return it.

    ``extra`` are keys of ``spec.json``, ``layers`` further rows of ``layers.parquet``; ``answers``, counts (T, T, T) as
    ``Run.answers`` gives them, make a ``confusion.parquet``, which older runs do not have.
    """
    path = folder / experiment / f"seed-{seed}"
    path.mkdir(parents=True)
    if rows is None:
        rows = accuracy_rows(
            accuracy_by_depth(seed, experiences=experiences, depth=depth, forgets=forgets, compresses=compresses)
        )
    resolved: dict[str, Any] = {
        "name": "synthetic",
        "stream": {
            "name": "split-digits",
            "experiences": experiences,
            "scenario": scenario,
            "labels": "per-experience",
        },
        "backbone": {"name": "ac_mixer", "depth": depth, "width": 32, "patch": 2},
        "strategy": {"name": "naive"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "epochs": 2,
        "batch_size": 64,
        "seeds": [seed],
    }
    for key, value in {**(axes or {}), **(settings or {})}.items():
        section, _, name = key.rpartition(".")
        (resolved[section] if section else resolved)[name] = value
    spec = {
        "schema_version": 1,
        "experiment": resolved,
        "id": experiment,
        "axes": dict(axes or {}),
        "seed": seed,
        "pins": {},
        "class_order": list(range(2 * experiences)),
        "parameters": 10_000 + 2_000 * depth,
        "versions": {"python": "3.11.7", "torch": "2.11.0", "acn-cl": "0.1.0"},
        "commit": "0123abc",
        "device": "cpu",
        "threads": 2,
        "precision": "fp32",
        "created": "2026-11-24T10:00:00Z",
        **(extra or {}),
    }
    status = {
        "state": state,
        "experiment": experiment,
        "seed": seed,
        "progress": {"experience": experiences, "experiences": experiences, "epoch": 2, "epochs": 2},
        "error": error,
        "pid": 2**22 + 1,
        "host": "nowhere",
        "started": "2026-11-24T10:00:00Z",
        "updated": "2026-11-24T10:01:00Z",
    }
    (path / "spec.json").write_text(json.dumps(spec))
    (path / "status.json").write_text(json.dumps(status))
    (path / "run.lock").touch()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=ACCURACY), path / "accuracy.parquet")
    of_layers = [*_layers(seed, experiences, depth), *layers]
    pq.write_table(pa.Table.from_pylist(of_layers, schema=LAYERS), path / "layers.parquet")
    timing = [
        {"trained": t, "phase": phase, "seconds": seconds, "samples": 2 * SAMPLES}
        for t in range(experiences)
        for phase, seconds in (("train", 1.5 + 0.1 * seed), ("evaluate", 0.25), ("save", 0.05))
    ]
    pq.write_table(pa.Table.from_pylist(timing, schema=TIMING), path / "timing.parquet")
    if answers is not None:
        pq.write_table(pa.Table.from_pylist(_confusion(answers), schema=CONFUSION), path / "confusion.parquet")
    return path


def _confusion(answers: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"trained": t, "evaluated": j, "predicted": k, "count": int(count)}
        for (t, j, k), count in np.ndenumerate(answers)
        if max(j, k) <= t
    ]


def answers(seed: int, experiences: int = 4) -> np.ndarray:
    """Plausible counts of answers, ``(T, T, T)``: of each experience's images most go to it, many to the newest."""
    random = np.random.default_rng(seed)
    counts = np.zeros((experiences,) * 3, dtype=int)
    for t in range(experiences):
        for j in range(t + 1):
            chances = 1 + 6.0 * (np.arange(t + 1) == j) + 8.0 * (np.arange(t + 1) == t)
            counts[t, j, : t + 1] = random.multinomial(SAMPLES, chances / chances.sum())
    return counts


def _layers(seed: int, experiences: int, depth: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {"trained": t, "epoch": epoch, "layer": layer, "quantity": "gradient_norm", "value": random.uniform(0.5, 1.5)}
        for t in range(experiences)
        for epoch in range(2)
        for layer in range(depth + 2)
    ]


def write_grid(folder: Path, seeds: Sequence[int] = (0, 1, 2), depths: Sequence[int] = (3,), **options: Any) -> Path:
    """Two backbones x two strategies (x depths), every seed, in ``folder``; returned."""
    for backbone, compresses, better in (("ac_mixer", True, 0.15), ("res_mixer", False, 0.0)):
        for strategy, protects in (("naive", 0.0), ("si", 0.1)):
            for depth in depths:
                for seed in seeds:
                    axes = {"backbone.name": backbone, "strategy.name": strategy}
                    if len(depths) > 1:
                        axes["backbone.depth"] = depth
                    write_run(
                        folder,
                        "-".join(str(value) for value in axes.values()),
                        seed,
                        axes=axes,
                        depth=depth,
                        forgets=0.5 - better - protects,
                        compresses=compresses,
                        **options,
                    )
    return folder


def measured(depth: int = 3, experiences: int = 4) -> dict[str, Any]:
    """What a run may record besides, for ``write_run(**measured())``: memory, operations, gradients, similarity."""
    quantities = (("direct_gradient_share", 0.9), ("cka", 1.0))
    return {
        "extra": {
            "peak_memory": 300 * 2**20,
            "flops_by_depth": [1_000_000 * (1 + k) for k in range(depth + 1)],
            "data_checksum": "ab" * 32,
        },
        "layers": [
            {"trained": t, "epoch": -1, "layer": k, "quantity": quantity, "value": top - 0.1 * k - 0.01 * t}
            for quantity, top in quantities
            for t in range(experiences)
            for k in range(depth + 1)
        ],
    }
