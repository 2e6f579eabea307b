"""What a bench found, as JSON and as Markdown."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from acn_cl.bench.figures import ONE, PLAIN, STACK
from acn_cl.runs.environment import versions
from acn_cl.runs.files import write_atomically, write_json


@dataclass
class Report:
    """All figures of one run of the bench."""

    plan: dict[str, Any]
    machine: dict[str, Any]
    comparison: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def write(report: Report, folder: Path) -> Path:
    """Write ``bench.json`` and ``bench.md`` into ``folder``; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", asdict(report))
    write_atomically(folder / "bench.md", lambda part: part.write_text(markdown(report), encoding="utf-8"))
    return folder / "bench.md"


def markdown(report: Report) -> str:
    """The report as two kinds of tables; each cell a median and its quartiles over the rounds."""
    lines = ["# Speed", "", *(f"- {key}: {value}" for key, value in report.machine.items()), ""]
    lines += [
        "Median (quartiles) over rounds in which all sides take turns. A step is of one run; ratios are taken round by",
        "round. Plain Avalanche runs in fp32, as its users do.",
        "",
        f"| strategy | L | {PLAIN}, ms | {ONE}, ms | {STACK}, ms | plain / one | plain / stacked | limit / one |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for row in report.comparison:
        times = row["seconds per step and run"]
        cells = [_cell(times[name], 1e3, 1) for name in (PLAIN, ONE, STACK)]
        cells += [_cell(row[key], 1, 2) for key in ("plain / one", "plain / stacked", "limit / one")]
        lines.append(f"| {row['strategy']} | {row['depth']} | {' | '.join(cells)} |")
        notes += [f"- {row['strategy']}, L = {row['depth']}, {note}" for note in row.get("notes", [])]
    lines += ["", *notes] if notes else []
    for name, curve in report.curves.items():
        lines += ["", f"| {name} | ms a step and run | times the first |", "|---|---|---|"]
        lines += [f"| {r['value']} | {_cell(r['seconds'], 1e3, 2)} | {_cell(r['ratio'], 1, 2)} |" for r in curve]
    return "\n".join(lines) + "\n"


def _cell(spread: Mapping[str, float], factor: float, digits: int) -> str:
    median, low, high = (f"{factor * spread[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def machine(device: torch.device, precision: str) -> dict[str, Any]:
    """What a bench runs on, and how busy it is."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cores": psutil.cpu_count(logical=False),
        "versions": versions(),
        "load at the start": os.getloadavg()[0],
    }


def _processor() -> str:
    """Its model, where Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_memory(device: torch.device) -> int:
    """MiB: the largest allocated on a GPU, on a CPU what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return int(psutil.Process().memory_info().rss) >> 20
