"""Statistics over seeds: what can be said about runs that differ only in their seed, and what cannot.

Every function takes values of shape ``(n,)``, one a seed; paired ones take two such arrays in the same order of seeds.
The tests are scipy's; what scipy lacks (Holm's correction, the detectable difference) is here. A test that its data
cannot support gives ``nan`` as its p, never a small number, and raises nothing: a report has to say "undetermined".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Error rate of every test and, as 1 - LEVEL, confidence of every interval."""
POWER = 0.8
"""Power at which a difference counts as detectable."""
EXACT_UP_TO = 14
"""Seeds up to which all 2^n sign flips are tried; above, that many random ones."""


BOOTSTRAP_FROM = 30
"""Seeds from which a percentile bootstrap interval covers 95 % ± 2 %, of normal values, by simulation. With fewer there
is none."""
BOOTSTRAP_RESAMPLES = 9999
BOOTSTRAP_SEED = 0
"""Fixed: the same runs give the same interval."""


@dataclass(frozen=True)
class Summary:
    """n values: mean, sample standard deviation (ddof 1) and t interval. Of one value, the last three are nan."""

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Two settings on the same seeds.

    Attributes:
        difference: of a - b, seed by seed, with its t interval.
        p: two-sided p of the paired t test; the primary one.
        permutation_p: two-sided p of the sign-flip permutation test, exact up to ``EXACT_UP_TO`` seeds.
        smallest_p: the least that the permutation test can reach with so many seeds, 2^(1-n).
        effect: Cohen's d_z, the mean difference over its standard deviation.
        detectable: the true difference that this test would find with probability ``POWER``, given this spread.

    What one pair, or a difference without spread, cannot tell is nan.
    """

    difference: Summary
    p: float
    permutation_p: float
    smallest_p: float
    effect: float
    detectable: float


def summarise(values: ArrayLike) -> Summary:
    """Mean, standard deviation and 95 % t interval of ``(n,)`` values.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    x = _finite(values)
    mean, std, half = (float(part[0]) for part in band(x[:, None]))
    return Summary(len(x), mean, std, mean - half, mean + half)


def band(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and half-width of the 95 % t interval of ``(n, k)`` values over n, each ``(k,)``.

    Of one value the last two are nan. The intervals hold for each of the k points by itself, not for all together.
    """
    n = len(values)
    mean = values.mean(axis=0)
    if n == 1:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    std = values.std(axis=0, ddof=1)
    return mean, std, stats.t.isf(LEVEL / 2, n - 1) * std / np.sqrt(n)


def bootstrap_interval(values: ArrayLike) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``(n,)`` values (``scipy.stats.bootstrap``), seed fixed.

    It does not take the values for normal, and needs many of them for that: nan below ``BOOTSTRAP_FROM`` of them, where
    it would be too narrow, and where all are the same.
    """
    x = _finite(values)
    if len(x) < BOOTSTRAP_FROM or np.ptp(x) == 0:
        return np.nan, np.nan
    found = stats.bootstrap(
        (x,),
        np.mean,
        confidence_level=1 - LEVEL,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Unpaired:
    """a - b of two independent samples: mean, 95 % interval and two-sided p of Welch's t test; nan: cannot be told."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def agrees(self) -> bool | None:
        """Whether the joint interval holds 0; None where there is no interval."""
        return None if not np.isfinite(self.low) else bool(self.low <= 0 <= self.high)


def unpaired(a: Summary, b: Summary) -> Unpaired:
    """Welch's t test and interval of a - b, from what a table prints: mean, standard deviation, n.

    For numbers of which nobody has the seeds, such as published ones. Welch 1947, Biometrika 34, 28-35.
    """
    difference = a.mean - b.mean
    if min(a.n, b.n) < 2 or not a.std**2 + b.std**2 > 0:
        return Unpaired(difference, np.nan, np.nan, np.nan)
    errors = [s.std**2 / s.n for s in (a, b)]
    freedom = sum(errors) ** 2 / sum(e**2 / (s.n - 1) for e, s in zip(errors, (a, b), strict=True))
    half = float(stats.t.isf(LEVEL / 2, freedom) * np.sqrt(sum(errors)))
    found = stats.ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n, equal_var=False)
    return Unpaired(difference, difference - half, difference + half, float(found.pvalue))


def compare(a: ArrayLike, b: ArrayLike) -> Paired:
    """Compare two settings seed by seed, ``(n,)`` each.

    With identical values throughout there is nothing to test and p is 1; when the difference is the same on every seed
    but not 0, its spread cannot be estimated and the t test's p is nan.

    Raises:
        ValueError: the shapes differ, there are no values, or one is not finite.
    """
    d = _differences(a, b)
    difference = summarise(d)
    return Paired(
        difference=difference,
        p=_t_test(d),
        permutation_p=_permutation_test(d),
        smallest_p=smallest_permutation_p(len(d)),
        effect=np.nan if _constant(d) else difference.mean / difference.std,
        detectable=np.nan if _constant(d) else minimum_detectable_difference(difference.std, len(d)),
    )


def smallest_permutation_p(n: int) -> float:
    """The least two-sided p of a sign-flip test on ``n`` pairs: 2 of the 2^n flips are as extreme as the data."""
    return float(2.0 ** (1 - n))


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjustment of the p of one family of tests, ``(m,)``; nan stays nan and is not counted.

    Compare an adjusted p with the level itself. Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    order = np.argsort(raw)[: int(np.sum(~np.isnan(raw)))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted


def minimum_detectable_difference(std: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """The true mean difference that a two-sided paired t test on ``n`` seeds finds with probability ``power``.

    Args:
        std: standard deviation of the differences, in the unit of the answer.
        n: pairs. With fewer than two nothing is detectable: infinite.
        level: of the test.
        power: wanted.
    """
    if n < 2:
        return np.inf
    if std == 0:
        return 0.0
    # The chance of a significant result of the wrong sign is left out: below 1e-6 at any power worth having.
    critical = stats.t.isf(level / 2, n - 1)
    noncentrality = optimize.brentq(lambda nc: stats.nct.sf(critical, n - 1, nc) - power, 0, 10 * critical)
    return float(noncentrality * std / np.sqrt(n))


def equivalence(a: ArrayLike, b: ArrayLike, margin: float) -> float:
    """p of two one-sided paired t tests that a and b differ by less than ``margin`` either way (TOST).

    Small: equivalent within the margin. Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, 657-680.

    Raises:
        ValueError: the margin is not positive, or the arrays cannot be compared.
    """
    if not margin > 0:
        raise ValueError(f"the margin of equivalence must be positive, not {margin}")
    d = _differences(a, b)
    if len(d) < 2 or _constant(d):
        return np.nan
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return float(max(above, below))


def _t_test(d: Floats) -> float:
    if _constant(d):
        return 1.0 if len(d) > 1 and not d.any() else np.nan
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def _permutation_test(d: Floats) -> float:
    if len(d) < 2:
        return 1.0
    result = stats.permutation_test(
        (d, np.zeros_like(d)),
        lambda x, y, axis: np.mean(x - y, axis=axis),  # swapping a pair flips the sign of its difference
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** min(len(d), EXACT_UP_TO),
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _constant(d: Floats) -> bool:
    return bool(np.ptp(d) <= 1e-12 * np.abs(d).max())


def _differences(a: Sequence[float] | ArrayLike, b: ArrayLike) -> Floats:
    x, y = _finite(a), _finite(b)
    if x.shape != y.shape:
        raise ValueError(f"a paired comparison needs the same seeds on both sides, not {len(x)} and {len(y)}")
    return x - y


def _finite(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"expected at least one value in one dimension, not shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite")
    return x
