"""The summary as Markdown, for a README or an issue."""

import re

from acn_cl.reports import labels
from acn_cl.reports.measures import MEASURES
from acn_cl.reports.results import Results
from acn_cl.reports.words import mean_std, state
from acn_cl.runs.load import Runs


def render(runs: Runs, results: Results) -> str:
    """One row an experiment, one column a (measure, dialect) that any of them has; then the runs that do not count."""
    names = labels.labels(runs)
    measures = [measure for measure in MEASURES if measure.key not in results.undefined]
    heads = [
        " ".join(filter(None, [measure.symbol, dialect, measure.unit and f"({measure.unit})"]))
        for measure in measures
        for dialect in measure.dialects
    ]
    lines = [_row(["experiment", "n", *heads]), _row(["---", *["---:"] * (len(heads) + 1)])]
    for experiment in results.experiments:
        shown = [result for measure in measures for result in results.dialects(experiment, measure)]
        cells = [mean_std(result.summary, result.measure.unit) for result in shown]
        lines.append(_row([_text(names[experiment]), str(len(results.any_of(experiment).seeds)), *cells]))
    lines += ["", "Mean ± sample standard deviation over n seeds; –: not defined there."]
    lost = [f"- {_text(names[run.experiment])} seed {run.seed}: {_text(state(run))}" for run in runs.unfinished()]
    lost += [f"- {_text(entry.reason)}" for entry in runs.unreadable]
    return "\n".join([*lines, *(["", "Not in these numbers:", "", *lost] if lost else []), ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Any text, shown as it is."""
    return re.sub(r"([\\`*_|<>\[\]~#$&])", r"\\\1", " ".join(text.split()))
