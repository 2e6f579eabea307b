"""The tables as LaTeX, for ``\\input`` into a paper; booktabs is the only package that they need."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from acn_cl.metrics import DIALECTS
from acn_cl.reports import labels
from acn_cl.reports.comparisons import Comparison
from acn_cl.reports.figures import slug
from acn_cl.reports.measures import HEADLINE
from acn_cl.reports.noise import Noise
from acn_cl.reports.published import Beside
from acn_cl.reports.results import Results, digest
from acn_cl.reports.words import NONE, interval, mean_std, number, p_value
from acn_cl.runs.load import Runs

SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "-'[*"},  # ligatures, and what could follow a row's end
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "–": "--",
    "′": "$'$",
    "\u202f": r"\,",
}
"""What a character of a name or a number becomes where LaTeX would read it otherwise."""


def tables(
    runs: Runs,
    results: Results,
    comparisons: Sequence[Comparison],
    noise: Noise,
    published: Sequence[Beside],
) -> Iterator[tuple[str, str]]:
    """(name, text) of every table: summary by dialect, comparisons, accuracy under noise, published numbers."""
    names = labels.labels(runs)
    for dialect in DIALECTS:
        yield f"summary-{dialect}", _summary(names, results, dialect)
    declared = [comparison for comparison in comparisons if comparison.declared]
    for recipe, group in groupby(declared, lambda c: c.factor):
        yield slug(f"declared-{recipe}"), _declared(names, list(group))
    pairs = [comparison for comparison in comparisons if not comparison.declared]
    for (factor, measure, dialect), group in groupby(pairs, lambda c: (c.factor, c.measure.key, c.dialect)):
        yield slug(f"comparisons-{factor}-{measure}-{dialect}"), _comparisons(names, list(group))
    if noise:
        yield "noise", _noise(names, noise, results)
    if published:
        yield "published", _published(names, published)


def _summary(names: dict[str, str], results: Results, dialect: str) -> str:
    measures = [measure for measure in HEADLINE if measure.key not in results.undefined]
    heads = [f"{measure.symbol} ({measure.unit})" for measure in measures]
    rows: list[list[str]] = []
    data: list[str] = []
    for experiment in results.experiments:
        shown = [results.of(experiment, m.key, dialect if len(m.dialects) > 1 else "") for m in measures]
        numbers = [mean_std(result.summary, result.measure.unit) for result in shown]
        rows.append([names[experiment], str(len(results.any_of(experiment).seeds)), *numbers])
        data += results.any_of(experiment).checksums
    about = f"Mean ± standard deviation over n seeds; F as in {dialect}"
    return _table(about, data, ["experiment", "n", *heads], [list(map(escape, row)) for row in rows])


def _comparisons(names: dict[str, str], group: Sequence[Comparison]) -> str:
    first = group[0]
    about = f"{first.measure.name} ({first.measure.unit}) {first.dialect}, a - b on the same seeds; paired t test, p "
    about += f"Holm-corrected over {first.family} pairs that differ in {first.factor}; bold where p < 0.05"
    heads = ["a", "b", "n", "a - b", "95 % interval", "p"]
    return _table(about, [c.data for c in group], heads, [_comparison(names, comparison) for comparison in group])


def _declared(names: dict[str, str], group: Sequence[Comparison]) -> str:
    about = f"Comparisons that the recipe {group[0].factor} declares, a - b on the same seeds; p of the test named, "
    family = group[0].family
    about += f"Holm-corrected over all {family}; bold where p < 0.05" if family else "none, for want of seeds"
    heads = ["measure", "a", "b", "n", "a - b", "95 % interval", "test", "p"]
    rows = []
    for comparison in group:
        what = " ".join(filter(None, [comparison.measure.name, comparison.dialect]))
        *cells, p = _comparison(names, comparison)
        rows.append([escape(what), *cells, escape(comparison.test), p])
    return _table(about, [c.data for c in group], heads, rows)


def _comparison(names: dict[str, str], comparison: Comparison) -> list[str]:
    paired, own = comparison.paired, [names[comparison.a], names[comparison.b], str(len(comparison.seeds))]
    if paired is None:
        return list(map(escape, [*own, NONE, NONE, NONE]))
    difference = escape(number(paired.difference.mean))
    shown = rf"\textbf{{{difference}}}" if comparison.decided else difference
    rest = [interval(paired.difference) if paired.difference.n > 1 else NONE, p_value(comparison.p)]
    return [*map(escape, own), shown, *map(escape, rest)]


def _published(names: dict[str, str], found: Sequence[Beside]) -> str:
    heads = ["experiment", "measure", "n", "ours", "published", "difference", "95 % interval"]
    rows = []
    for one in found:
        ours, theirs = one.ours, one.theirs
        what = " ".join(filter(None, [ours.measure.symbol, ours.dialect]))
        numbers = [str(ours.summary.n), mean_std(ours.summary), mean_std(theirs.summary)]
        joint = interval(one.difference) if np.isfinite(one.difference.low) else NONE
        rows.append([names[ours.experiment], what, *numbers, number(one.difference.mean), joint])
    sources = "; ".join(dict.fromkeys(f"{one.theirs.source}, {one.theirs.place}" for one in found))
    about = f"Ours beside published numbers (%), ours - published with its joint interval (Welch). {sources}"
    return _table(about, [one.ours.data for one in found], heads, [list(map(escape, row)) for row in rows])


def _noise(names: dict[str, str], noise: Noise, results: Results) -> str:
    rows = [[names[name], *(mean_std(summary) for summary in found.values())] for name, found in noise.items()]
    heads = ["experiment", *next(iter(noise.values()))]
    data = [results.of(name, "average_accuracy").data for name in noise]
    about = "Average accuracy (%) after the last experience"
    return _table(about, data, heads, [list(map(escape, row)) for row in rows])


def _table(about: str, data: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``rows`` are LaTeX, the rest is plain text; ``data`` are the checksums of what the numbers come from."""
    lines = [
        f"% {' '.join(about.split())}. Made by acn-cl report; needs \\usepackage{{booktabs}}.",
        f"% Data of the runs: {digest(data)}.",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        _row(list(map(escape, heads))),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; letters that pdflatex's plain fonts lack as ``[U+4E2D]``."""
    return "".join(_escaped(character) for character in re.sub(r"\s+", " ", text, flags=re.ASCII))


def _escaped(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    accented = "\xc0" <= character <= "\xff" and unicodedata.decomposition(character)
    if (character.isascii() and character.isprintable()) or accented:
        return character
    return f"{{[}}U+{ord(character):04X}]"
