"""Numbers and verdicts in words."""

from collections.abc import Sequence

import numpy as np

from acn_cl.reports.comparisons import Comparison
from acn_cl.reports.measures import Measure
from acn_cl.reports.results import Result
from acn_cl.runs.load import Run
from acn_cl.stats import Paired, Summary, Unpaired

NONE = "–"
COUNTS = ("", "MFLOP")
"""Units of what follows from the settings: it has no spread over seeds."""


def number(value: float, unit: str = "%") -> str:
    """A number as the report prints it: one decimal where it has a unit, else whole, with thin spaces."""
    if not np.isfinite(value):
        return NONE
    text = f"{value:z.1f}" if unit else f"{value:z,.0f}".replace(",", "\u202f")  # z: no minus before a zero
    return text.replace("-", "−")


def digits(value: float) -> str:
    """Two significant digits, for what spans powers of ten: ``0.0023``, ``1.2e-07``."""
    return f"{value:.2g}".replace("-", "−") if np.isfinite(value) else NONE


def mean_std(summary: Summary, unit: str = "%") -> str:
    """``52.3 ± 1.2``; the mean alone where there is no spread to speak of: one seed, or a count."""
    mean = number(summary.mean, unit)
    return f"{mean} ± {number(summary.std, unit)}" if unit not in COUNTS and np.isfinite(summary.std) else mean


def interval(summary: Summary | Unpaired, unit: str = "%") -> str:
    """``49.1 to 55.5``."""
    return f"{number(summary.low, unit)} to {number(summary.high, unit)}"


def bootstrap(result: Result) -> str:
    """``bootstrap interval 49.0 to 55.4; ``, or nothing where there is none."""
    low, high = result.bootstrap
    unit = result.measure.unit
    return f"bootstrap interval {number(low, unit)} to {number(high, unit)}; " if np.isfinite(low) else ""


def p_value(p: float) -> str:
    """``0.031``, ``< 0.001``; nothing smaller is claimed."""
    if not np.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_phrase(p: float) -> str:
    """``p = 0.031`` or ``p < 0.001``."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def state(run: Run) -> str:
    """What became of an unfinished run: ``failed: loss is NaN``, ``died after 2 of 5 experiences``."""
    behind, of = run.status.progress.get("experience"), run.status.progress.get("experiences")
    progress = f" after {behind} of {of} experiences" if behind is not None and of else ""
    return f"{run.status.state}{progress}{f': {run.status.error}' if run.status.error else ''}"


def verdict(comparison: Comparison, a: str, b: str) -> str:
    """One comparison as a sentence about ``a`` and ``b``: decided, or undetermined and why.

    The interval is that of the amount in the sentence: of "less" if it says less.
    """
    added = [_equivalence(comparison), _late(comparison), _other_images(comparison)]
    return " ".join(filter(None, [_verdict(comparison, a, b), *added]))


def _verdict(comparison: Comparison, a: str, b: str) -> str:
    paired, measure = comparison.paired, comparison.measure
    if paired is None:
        return f"Undetermined: {a} and {b} have no finished seed in common."
    difference = paired.difference
    claim = f"{a} {_relation(measure, difference.mean)} {b}"
    if difference.n == 1:
        return f"Undetermined: on the one common seed {claim}; one seed says nothing about the spread."
    if difference.mean == 0 and difference.std == 0:
        return f"{a} and {b} give the same {measure.name.lower()} on every one of {difference.n} seeds."
    if not np.isfinite(comparison.p):
        return f"Undetermined: {claim} on each of {difference.n} seeds, so the spread cannot be estimated."
    low, high = sorted(np.copysign(1, difference.mean) * np.array([difference.low, difference.high]))
    test = ", sign-flip test" if comparison.test == "sign-flip" else ""
    evidence = f"95 % interval {number(low)} to {number(high)}, {p_phrase(comparison.p)}, n = {difference.n}{test}"
    if comparison.decided:
        return f"{claim} ({evidence})."
    return f"Undetermined: here {claim} ({evidence}). {_reach(comparison, paired)}"


def _reach(comparison: Comparison, paired: Paired) -> str:
    """What the test could have found."""
    if comparison.test == "sign-flip":
        return f"The least p of this test with {paired.difference.n} seeds: {p_value(paired.smallest_p)}, uncorrected."
    return f"Detectable: {number(paired.detectable)} {points(comparison.measure)}."


def _equivalence(comparison: Comparison) -> str:
    """What the test of equivalence adds, if it was asked for."""
    if not comparison.margin or not np.isfinite(comparison.p_equivalent):
        return ""
    margin = f"{comparison.margin:g} {points(comparison.measure)}"
    found = f"(two one-sided tests, {p_phrase(comparison.p_equivalent)})"
    if comparison.equivalent:
        return f"Equivalent within {margin} {found}."
    if comparison.decided:  # and that is what there is to say
        return ""
    return f"Not shown to be within {margin} of each other {found}."


def _late(comparison: Comparison) -> str:
    if not comparison.late:
        return ""
    return f"Declared after {comparison.late} of the runs had begun: not a test of what was said before."


def _other_images(comparison: Comparison) -> str:
    if comparison.images < 2:
        return ""
    return f"Not on the same images: the data sets behind these runs have {comparison.images} different checksums."


def points(measure: Measure) -> str:
    """The unit of a difference, in words."""
    return "points" if measure.unit == "%" else measure.unit


def said(comparisons: Sequence[Comparison], a: str, b: str) -> list[str]:
    """One line a comparison of :func:`acn_cl.reports.compare`; ``a`` and ``b`` name the two sides."""
    return [
        f"{' → '.join(dict.fromkeys([c.a, c.b]))}{f', {c.dialect}' if c.dialect else ''}: {verdict(c, a, b)}"
        for c in comparisons
    ]


def _relation(measure: Measure, difference: float) -> str:
    words = measure.more if difference >= 0 else measure.less
    return words.format(number(abs(difference)))
