"""Every measure against loops written from the papers' formulas, against cases done by hand, and against its laws."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acn_cl import metrics

# By hand: learned at 0.9, 0.8, 0.7; ends at 0.3, 0.6, 0.7; experience 0 was better (0.95) after experience 1.
R = np.array([[0.90, 0.10, 0.20], [0.95, 0.80, 0.30], [0.30, 0.60, 0.70]])
LOWER = np.where(np.tri(3, dtype=bool), R, np.nan)


@st.composite
def matrices(draw, least=2):
    size = draw(st.integers(least, 6))
    return draw(arrays(np.float64, (size, size), elements=st.floats(0, 1, width=32)))


def test_by_hand():
    assert metrics.average_accuracy(R) == pytest.approx((0.3 + 0.6 + 0.7) / 3)
    assert metrics.learning_accuracy(R) == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert metrics.average_incremental_accuracy(R) == pytest.approx((0.9 + 1.75 / 2 + 1.6 / 3) / 3)
    assert metrics.average_forgetting(R) == pytest.approx((0.6 + 0.2) / 2)
    assert metrics.average_forgetting(R, "chaudhry2018") == pytest.approx((0.65 + 0.2) / 2)
    assert metrics.average_forgetting(R, "max-all") == pytest.approx((0.65 + 0.2) / 2)
    assert metrics.backward_transfer(R) == pytest.approx(-0.4)
    assert metrics.backward_transfer(R, "diaz-rodriguez2018") == pytest.approx((0.05 - 0.6 - 0.2) / 3)
    assert metrics.forward_transfer(R, [0.1, 0.2, 0.05]) == pytest.approx((0.1 - 0.2 + 0.3 - 0.05) / 2)
    assert metrics.intransigence(R, [1.0, 0.9, 0.6]) == pytest.approx((0.1 + 0.1 - 0.1) / 3)
    assert metrics.min_accuracy(R) == pytest.approx((0.3 + 0.6) / 2)
    assert metrics.worst_case_accuracy(R) == pytest.approx(0.7 / 3 + 2 / 3 * 0.45)
    assert metrics.forgetting_by_age(R) == pytest.approx([(-0.05 + 0.2) / 2, 0.6])
    assert metrics.recency_gap(R) == pytest.approx(0.7 - (0.3 + 0.6) / 2)
    assert metrics.windowed_plasticity(R) == pytest.approx((0.05 + 0.7 + 0.5) / 3)
    assert metrics.windowed_forgetting(R) == pytest.approx((0.65 + 0.2 - 0.1) / 3)
    assert metrics.windowed_plasticity(R, window=2) == pytest.approx((0.05 + 0.7 + 0.4) / 3)


def test_the_last_row_may_be_the_best_one():
    improves = np.array([[0.5, 0.0], [0.9, 0.8]])
    assert metrics.average_forgetting(improves) == pytest.approx(-0.4)
    assert metrics.average_forgetting(improves, "chaudhry2018") == pytest.approx(-0.4)
    assert metrics.average_forgetting(improves, "max-all") == 0


def test_what_was_known_before_it_was_learned_counts_in_the_maxima():
    transferred = np.array([[0.9, 0.8, 0.0], [0.9, 0.6, 0.0], [0.9, 0.5, 0.9]])
    assert metrics.average_forgetting(transferred) == pytest.approx(0.1 / 2)
    assert metrics.average_forgetting(transferred, "chaudhry2018") == pytest.approx(0.3 / 2)


@given(matrices())
def test_against_loops(R):
    T = len(R)
    assert metrics.average_accuracy(R) == pytest.approx(sum(R[T - 1, j] for j in range(T)) / T)
    assert metrics.learning_accuracy(R) == pytest.approx(sum(R[j, j] for j in range(T)) / T)
    assert metrics.average_incremental_accuracy(R) == pytest.approx(
        sum(sum(R[t, j] for j in range(t + 1)) / (t + 1) for t in range(T)) / T
    )
    first = [R[j, j] - R[T - 1, j] for j in range(T - 1)]
    before = [max(R[i, j] for i in range(T - 1)) - R[T - 1, j] for j in range(T - 1)]
    ever = [max(R[i, j] for i in range(T)) - R[T - 1, j] for j in range(T - 1)]
    assert metrics.average_forgetting(R) == pytest.approx(sum(first) / (T - 1))
    assert metrics.average_forgetting(R, "chaudhry2018") == pytest.approx(sum(before) / (T - 1))
    assert metrics.average_forgetting(R, "max-all") == pytest.approx(sum(ever) / (T - 1))
    pairs = [(t, j) for t in range(T) for j in range(t)]
    diaz = sum(R[t, j] - R[j, j] for t, j in pairs) / len(pairs)
    assert metrics.backward_transfer(R, "diaz-rodriguez2018") == pytest.approx(diaz)
    lowest = [min(R[t, j] for t in range(j + 1, T)) for j in range(T - 1)]
    assert metrics.min_accuracy(R) == pytest.approx(sum(lowest) / (T - 1))
    assert metrics.forward_transfer(R, R[0]) == pytest.approx(sum(R[j - 1, j] - R[0, j] for j in range(1, T)) / (T - 1))
    ages = [[R[j, j] - R[j + age, j] for j in range(T - age)] for age in range(1, T)]
    assert metrics.forgetting_by_age(R) == pytest.approx([sum(age) / len(age) for age in ages])


@given(matrices(least=3), st.integers(2, 7))
def test_windowed_measures_against_loops(A, window):
    N, T = A.shape
    pairs = [(m, n) for m in range(N) for n in range(m + 1, N) if n - m < window]
    rises = [max(A[n, j] - A[m, j] for m, n in pairs) for j in range(T)]
    falls = [max(A[m, j] - A[n, j] for m, n in pairs) for j in range(T)]
    assert metrics.windowed_plasticity(A, window=window) == pytest.approx(sum(rises) / T)
    assert metrics.windowed_forgetting(A, window=window) == pytest.approx(sum(falls) / T)


@given(matrices())
def test_recency_gap_against_loops(R):
    T = len(R)
    assert metrics.recency_gap(R) == pytest.approx(R[-1, -1] - sum(R[-1, j] for j in range(T - 1)) / (T - 1))


@given(arrays(np.int64, st.tuples(st.integers(2, 6)).map(lambda n: n * 2), elements=st.integers(0, 50)))
def test_recency_bias_against_loops(answers):
    answers = answers + np.eye(len(answers), dtype=int)  # nobody has no image
    T = len(answers)
    shares = [answers[j, T - 1] / sum(answers[j, k] for k in range(T)) for j in range(T)]
    assert metrics.recency_bias(answers) == pytest.approx(sum(shares) / T - 1 / T)


def test_recency_bias_by_hand():
    assert metrics.recency_bias(np.diag([10, 20, 30])) == pytest.approx(0)
    assert metrics.recency_bias([[0, 10], [0, 7]]) == pytest.approx(1 / 2), "everything is taken for the newest"
    assert metrics.recency_bias([[10, 0], [30, 0]]) == pytest.approx(-1 / 2), "nothing is"
    assert metrics.recency_bias([[75, 25], [0, 4]]) == pytest.approx((0.25 + 1) / 2 - 1 / 2), (
        "experiences weigh the same"
    )
    both = np.stack([np.diag([1, 1]), [[0, 10], [0, 7]]])
    assert metrics.recency_bias(both) == pytest.approx([0, 0.5])


def test_what_was_not_evaluated_is_in_no_window():
    A = np.array([[0.5, np.nan], [0.9, np.nan], [0.4, 0.2], [0.6, 0.8]])
    learning = [0, 0, 1, 1]
    assert metrics.windowed_plasticity(A, learning) == pytest.approx((0.4 + 0.6) / 2)
    assert metrics.windowed_forgetting(A, learning) == pytest.approx((0.5 - 0.6) / 2)


@given(matrices())
def test_laws(R):
    T = len(R)
    accuracy, learning, transfer = (
        metrics.average_accuracy(R),
        metrics.learning_accuracy(R),
        metrics.backward_transfer(R),
    )
    assert accuracy == pytest.approx(learning + (T - 1) / T * transfer)
    assert transfer == pytest.approx(-metrics.average_forgetting(R))
    ordered = [metrics.average_forgetting(R, dialect) for dialect in metrics.DIALECTS]
    assert ordered == sorted(ordered)
    assert ordered[-1] >= 0
    assert metrics.average_anytime_accuracy(R) == pytest.approx(metrics.average_incremental_accuracy(R))
    assert metrics.worst_case_accuracy(R) <= accuracy + 1e-12
    assert metrics.forgetting_by_age(R)[-1] == pytest.approx(metrics.forgetting(R)[-1, 0])


@given(matrices())
def test_a_stream_cut_short_is_the_upper_left_corner(R):
    t = len(R) - 1
    if t >= 2:
        for dialect in metrics.DIALECTS:
            row = metrics.forgetting(R, dialect)[t - 1, : t - 1]
            assert row.mean() == pytest.approx(metrics.average_forgetting(R[:t, :t], dialect))


@given(arrays(np.float64, (3, 2, 4, 4), elements=st.floats(0, 1, width=32)))
def test_a_batch_is_its_members(batch):
    measures = [metrics.average_accuracy, metrics.average_forgetting, metrics.min_accuracy, metrics.backward_transfer]
    for measure in measures:
        whole = measure(batch)
        assert whole.shape == (3, 2)
        assert whole[2, 1] == pytest.approx(measure(batch[2, 1]))
    assert metrics.forgetting_by_age(batch).shape == (3, 2, 3)
    assert metrics.forward_transfer(batch, np.zeros(4)).shape == (3, 2)


def test_a_task_incremental_matrix_has_no_future():
    for dialect in metrics.DIALECTS:
        known = metrics.average_forgetting(LOWER, dialect)
        assert known == pytest.approx(metrics.average_forgetting(np.nan_to_num(LOWER), dialect))
    assert metrics.average_incremental_accuracy(LOWER) == metrics.average_incremental_accuracy(R)
    with pytest.raises(ValueError, match="above the main one"):
        metrics.forward_transfer(LOWER, np.zeros(3))


def test_a_trace_sees_the_dip_that_the_ends_do_not():
    A = np.array([[0.9, np.nan], [0.2, 0.4], [0.6, 0.8]])  # the end of 0, within 1, the end of 1
    learning = [0, 1, 1]
    assert metrics.stability_gap(A, learning) == pytest.approx(0.6 - 0.2)
    assert metrics.min_accuracy(A, learning) == pytest.approx(0.2)
    assert metrics.min_accuracy(A[[0, 2]]) == pytest.approx(0.6)
    assert metrics.worst_case_accuracy(A, learning) == pytest.approx(0.8 / 2 + 0.2 / 2)
    assert metrics.average_anytime_accuracy(A, learning) == pytest.approx((0.9 + 0.3 + 0.7) / 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.average_forgetting([[0.5]]), "at least two experiences"),
        (lambda: metrics.backward_transfer([[0.5]]), "at least two experiences"),
        (lambda: metrics.forward_transfer([[0.5]], [0.1]), "at least two experiences"),
        (lambda: metrics.min_accuracy([[0.5]]), "at least two experiences"),
        (lambda: metrics.stability_gap([[0.5]], [0]), "at least two experiences"),
        (lambda: metrics.stability_gap(R, [0, 1, 2]), "evaluate_every"),
        (lambda: metrics.average_forgetting(R, "median"), "from-learned, chaudhry2018, max-all"),
        (lambda: metrics.backward_transfer(R, "median"), "lopez-paz2017"),
        (lambda: metrics.average_accuracy(np.full((2, 2), np.nan)), "not evaluated"),
        (lambda: metrics.average_forgetting(LOWER.T), "not evaluated"),
        (lambda: metrics.average_accuracy([0.1, 0.2]), r"\(\.\.\., T, T\)"),
        (lambda: metrics.average_accuracy(np.zeros((2, 3))), r"\(2, 3\)"),
        (lambda: metrics.average_accuracy(np.zeros((0, 0))), "T >= 1"),
        (lambda: metrics.forward_transfer(R, [0.1, 0.1]), "initial has one accuracy an experience"),
        (lambda: metrics.intransigence(R, [0.1, np.nan, 0.1]), "joint has entries"),
        (lambda: metrics.recency_gap([[0.5]]), "at least two experiences"),
        (lambda: metrics.recency_bias([[5]]), "at least two experiences"),
        (lambda: metrics.recency_bias([[5, 1], [0, 0]]), "test images of every experience"),
        (lambda: metrics.recency_bias([5, 1]), r"counts of shape \(\.\.\., T, T\), not \(2,\)"),
        (lambda: metrics.windowed_plasticity(LOWER), "two moments within a window"),
        (lambda: metrics.windowed_forgetting(R, window=1), "at least two moments"),
        (lambda: metrics.min_accuracy(R, [0, 2, 2]), "without a gap"),
        (lambda: metrics.min_accuracy(R, [0, 1]), "one row|trace has shape"),
    ],
)
def test_undefined_is_an_error_that_says_what_is_missing(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_one_experience_is_enough_for_what_needs_no_past():
    assert metrics.average_accuracy([[0.5]]) == metrics.learning_accuracy([[0.5]]) == 0.5
    assert metrics.average_incremental_accuracy([[0.5]]) == 0.5


DOCS = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()


def test_the_docs_give_the_numbers_that_their_code_gives():
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    known: dict[str, object] = {}
    for line in code.splitlines():
        call, _, comment = line.partition("  # ")
        if not call.startswith("metrics."):
            exec(line, known)
        else:
            stated = re.findall(r"\d\.\d+(?=[^ ]*$|, \d|\])", comment)
            np.testing.assert_allclose(
                eval(call, known), [float(x) for x in stated] if len(stated) > 1 else float(stated[0])
            )


def test_the_docs_name_every_function_and_dialect():
    functions = [
        name for name, value in vars(metrics).items() if callable(value) and value.__module__ == metrics.__name__
    ]
    helpers = {"accuracy_so_far", "forgetting", "forgetting_by_age"}
    missing = [
        name for name in functions if not name.startswith("_") and name not in helpers and f"`{name}(" not in DOCS
    ]
    assert missing == []
    assert all(f"| `{dialect}` |" in DOCS for dialect in metrics.DIALECTS)
