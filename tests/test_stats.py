"""Statistics against scipy, against cases done by hand, and against simulation: do they keep what they promise?"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from acn_cl import stats


def test_summary_by_hand():
    found = stats.summarise([2.0, 4.0, 9.0])
    assert (found.n, found.mean) == (3, 5.0)
    assert found.std == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    half = 4.302652729911275 * np.sqrt(13) / np.sqrt(3)  # t with 2 degrees of freedom, 97.5 %: any table
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half))


def test_one_value_has_no_spread():
    found = stats.summarise([2.0])
    assert found.mean == 2.0
    assert np.isnan([found.std, found.low, found.high]).all()


@given(st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=9).filter(lambda x: np.ptp(x) > 1e-3))
def test_summary_is_scipys(values):
    found = stats.summarise(values)
    low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_comparison_is_scipys():
    a, b = np.array([0.51, 0.62, 0.55, 0.70]), np.array([0.48, 0.55, 0.56, 0.60])
    found = stats.compare(a, b)
    assert found.p == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert found.difference == stats.summarise(a - b)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_permutation_p_counts_the_sign_flips(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    flips = np.array(list(product([-1, 1], repeat=n)))
    extreme = np.mean(np.abs(flips @ d) >= np.abs(d.sum()) - 1e-12)
    found = stats.compare(d, np.zeros(n))
    assert found.permutation_p == pytest.approx(extreme)
    assert found.permutation_p >= found.smallest_p


@pytest.mark.parametrize(("n", "least"), [(2, 0.5), (3, 0.25), (5, 0.0625), (8, 0.0078125)])
def test_smallest_permutation_p_is_reached(n, least):
    assert stats.smallest_permutation_p(n) == least
    assert stats.compare(np.arange(1.0, n + 1), np.zeros(n)).permutation_p == pytest.approx(least)


def test_what_a_test_cannot_tell_is_nan_not_small():
    alone = stats.compare([0.6], [0.5])
    assert np.isnan([alone.p, alone.effect, alone.detectable]).all()
    assert alone.permutation_p == 1.0
    constant = stats.compare([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])
    assert np.isnan([constant.p, constant.effect, constant.detectable]).all()
    same = stats.compare([0.6, 0.7], [0.6, 0.7])
    assert (same.p, same.permutation_p) == (1.0, 1.0)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    with_nan = stats.holm([np.nan, 0.02, 0.04])
    assert np.isnan(with_nan[0])
    assert with_nan[1:] == pytest.approx([0.04, 0.04])
    assert stats.holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(p):
    adjusted = stats.holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_equivalence_is_two_one_sided_tests():
    a, b = np.array([0.50, 0.52, 0.49, 0.51]), np.array([0.51, 0.50, 0.50, 0.50])
    d = a - b
    expected = max(
        scipy_stats.ttest_1samp(d, -0.05, alternative="greater").pvalue,
        scipy_stats.ttest_1samp(d, 0.05, alternative="less").pvalue,
    )
    assert stats.equivalence(a, b, 0.05) == pytest.approx(expected)
    assert stats.equivalence(a, b, 0.05) < 0.05 < stats.equivalence(a, b, 0.005)
    assert np.isnan(stats.equivalence([0.1], [0.1], 0.05))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 8), (8, 3)])
def test_unpaired_is_scipys_welch(n, m):
    random = np.random.default_rng(n)
    a, b = random.normal(1, 2, n), random.normal(0, 0.5, m)
    found = stats.unpaired(stats.summarise(a), stats.summarise(b))
    expected = scipy_stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert (found.mean, found.low, found.high, found.p) == pytest.approx(
        (a.mean() - b.mean(), low, high, expected.pvalue)
    )
    assert found.agrees == (low <= 0 <= high)


def test_what_has_no_spread_or_no_number_of_seeds_has_no_joint_interval():
    one, some = stats.summarise([1.0]), stats.summarise([1.0, 2.0])
    unknown = stats.Summary(0, 5.0, 1.0, np.nan, np.nan)
    constant = stats.summarise([1.0, 1.0])
    for other in (one, unknown):
        found = stats.unpaired(some, other)
        assert np.isnan([found.low, found.high, found.p]).all()
        assert found.agrees is None
    assert stats.unpaired(constant, constant).agrees is None
    assert stats.unpaired(some, unknown).mean == -3.5


def test_bootstrap_interval_is_scipys_with_a_fixed_seed():
    x = np.random.default_rng(1).exponential(1, stats.BOOTSTRAP_FROM)
    found = stats.bootstrap_interval(x)
    assert found == stats.bootstrap_interval(x)
    resampled = np.random.default_rng(7).choice(x, (20_000, len(x))).mean(axis=1)
    assert found == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.02)
    assert np.isnan(stats.bootstrap_interval(x[:-1])).all()
    assert np.isnan(stats.bootstrap_interval(np.ones(40))).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stats.summarise([]), "at least one value"),
        (lambda: stats.summarise([0.1, np.nan]), "not finite"),
        (lambda: stats.compare([0.1, 0.2], [0.1]), "same seeds"),
        (lambda: stats.equivalence([0.1, 0.2], [0.1, 0.3], 0), "must be positive"),
    ],
)
def test_input_that_makes_no_sense_is_an_error(call, says):
    with pytest.raises(ValueError, match=says):
        call()


TRIALS = 20_000


def samples(n):
    return np.random.default_rng(n).normal(0.3, 2.0, (TRIALS, n))


@pytest.mark.parametrize("n", [3, 5, 8])
def test_t_intervals_cover(n):
    mean, _, half = stats.band(samples(n).T)
    assert np.mean(np.abs(mean - 0.3) <= half) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_false_alarms_stay_at_the_level(n):
    p = [stats._t_test(d) for d in samples(n)[:4000] - 0.3]
    rate = np.mean(np.array(p) < stats.LEVEL)
    assert rate == pytest.approx(stats.LEVEL, abs=4 * np.sqrt(0.05 * 0.95 / 4000))


def test_permutation_test_does_not_exceed_its_level():
    p = [stats._permutation_test(d) for d in samples(6)[:500] - 0.3]
    assert np.mean(np.array(p) < stats.LEVEL) <= stats.LEVEL + 4 * np.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_the_detectable_difference_is_detected_that_often(n):
    difference = stats.minimum_detectable_difference(2.0, n)
    d = samples(n) - 0.3 + difference
    mean, _, half = stats.band(d.T)
    assert np.mean(np.abs(mean) > half) == pytest.approx(stats.POWER, abs=0.015)


def test_detectable_difference_at_the_edges():
    assert stats.minimum_detectable_difference(1.0, 1) == np.inf
    assert stats.minimum_detectable_difference(0.0, 5) == 0.0
    assert stats.minimum_detectable_difference(1.0, 5) < stats.minimum_detectable_difference(1.0, 4)


def bootstrap_coverage(n, trials=2000, resamples=1000):
    """How often a percentile bootstrap interval of n normal values holds their true mean."""
    random = np.random.default_rng(n)
    values = random.normal(0.3, 2.0, (trials, n))
    held = 0
    for x in values:
        low, high = np.percentile(x[random.integers(0, n, (resamples, n))].mean(axis=1), [2.5, 97.5])
        held += low <= 0.3 <= high
    return held / trials


def test_bootstrap_intervals_cover_from_where_they_are_given_and_not_before():
    assert bootstrap_coverage(stats.BOOTSTRAP_FROM) == pytest.approx(0.95, abs=0.02)
    assert bootstrap_coverage(8) < 0.93
