"""From a plan to its report, figure by figure."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acn_cl.bench.figures import CURVES, compare
from acn_cl.bench.plan import Plan
from acn_cl.bench.report import Report, machine, peak_memory, write
from acn_cl.training.device import choose_device, choose_precision

SAME = ("device", "precision", "threads", "versions")
"""What of a machine must be the same for a bench to go on."""


def bench(plan: Plan, folder: Path, say: Callable[[str], None] = lambda line: None) -> Report:
    """Measure everything in ``plan``; what is measured is written at once, and a bench that was cut off goes on.

    Args:
        plan: what to measure.
        folder: for ``bench.json`` and ``bench.md``. What is there is kept if it is of the same plan and machine.
        say: told what is being measured, one line a time.

    Raises:
        UserError: the device or the data is not there, or the folder cannot be written.
    """
    device = choose_device(plan.device)
    report = _begun(plan, machine(device, choose_precision(plan.precision, device)), folder)
    rows = [(strategy, depth) for strategy in plan.strategies for depth in plan.depths]
    there = len(report.comparison) + len(report.curves)
    if there:
        total = len(rows) + len(CURVES)
        say(f"{folder}: {there} of {total} figures are there already; another folder measures them anew")
    for strategy, depth in rows[len(report.comparison) :]:
        say(f"{strategy}, L = {depth}")
        report.comparison.append(compare(plan, strategy, depth))
        write(report, folder)
    for name, curve in CURVES.items():
        if name not in report.curves:
            say(f"growth with {name}")
            report.curves[name] = curve(plan)
            write(report, folder)
    report.machine["load at the end"] = os.getloadavg()[0]
    report.machine["largest memory of the process, MiB"] = peak_memory(device)
    write(report, folder)
    return report


def _begun(plan: Plan, machine: dict[str, Any], folder: Path) -> Report:
    """What the folder holds of the same plan and machine, or a report of nothing yet."""
    new = Report(json.loads(json.dumps(asdict(plan))), machine)
    try:
        there = Report(**json.loads((folder / "bench.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return new
    same = there.plan == new.plan and all(there.machine.get(key) == machine[key] for key in SAME)
    return there if same else new
