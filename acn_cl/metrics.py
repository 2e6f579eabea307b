"""Continual-learning measures of an accuracy matrix, each with its formula and its source.

``R`` has shape ``(..., T, T)``: ``R[t, j]`` is the accuracy on experience ``j`` after training on experience ``t``,
both counted from 0, as a share in 0..1. NaN means "not evaluated" (a head that does not exist yet). Leading axes are
a batch (seeds, depths): a measure of one matrix is a float, of a batch an array of shape ``(...)``. Experiences weigh
the same (macro average), however many samples they have.

The anytime measures take a *trace* ``A`` of shape ``(..., N, T)`` instead: one row a moment of evaluation, in order,
and ``learning`` of shape ``(N,)``, the experience being learned at each (at its end: that experience). ``R`` itself is
the trace of a run evaluated at the end of each experience, and ``learning`` defaults to that.

A measure that is not defined on its input raises ``ValueError`` and says what is missing; none falls back to 0.

References, by the names used below:
    Lopez-Paz 2017: Lopez-Paz & Ranzato, Gradient Episodic Memory, arXiv 1706.08840
    Rebuffi 2017: iCaRL, arXiv 1611.07725
    Chaudhry 2018: Riemannian Walk, arXiv 1801.10112
    Diaz-Rodriguez 2018: Don't forget, there is more than forgetting, arXiv 1810.13166
    Riemer 2019: Meta-Experience Replay, arXiv 1810.11910
    Caccia 2022: New Insights on Reducing Abrupt Representation Change in Online CL, arXiv 2104.05025
    De Lange 2023: Continual evaluation for lifelong learning, arXiv 2205.13452
    Wu 2019: Large Scale Incremental Learning, arXiv 1905.13260
    Hou 2019: Learning a Unified Classifier Incrementally via Rebalancing, CVPR 2019
    Masana 2022: Class-incremental learning: survey and performance evaluation, arXiv 2010.15277
    ACN 2025: Auto-Compressing Networks, arXiv 2506.09714
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Dialect = Literal["from-learned", "chaudhry2018", "max-all"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def average_accuracy(R: ArrayLike) -> Floats:
    """ACC = 1/T Σ_j R[T-1, j]: accuracy on all experiences after the last (Lopez-Paz 2017, eq. 2)."""
    R = _matrix(R)
    return _mean(_complete(R[..., -1, :], "average accuracy", "the last row"))


def average_incremental_accuracy(R: ArrayLike) -> Floats:
    """AIA = 1/T Σ_t 1/(t+1) Σ_{j<=t} R[t, j]: the average over the stream of the accuracy so far (Rebuffi 2017)."""
    return _mean(accuracy_so_far(R))


def accuracy_so_far(R: ArrayLike) -> Floats:
    """1/(t+1) Σ_{j<=t} R[t, j] for each t, shape ``(..., T)``: accuracy on what has been seen (Rebuffi 2017)."""
    R = _matrix(R)
    experiences = R.shape[-1]
    seen = np.tri(experiences, dtype=bool)
    _complete(R[..., seen], "accuracy so far", "the lower triangle")
    sums: Floats = np.where(seen, R, 0.0).sum(axis=-1)
    return sums / np.arange(1, experiences + 1)


def learning_accuracy(R: ArrayLike) -> Floats:
    """LA = 1/T Σ_j R[j, j]: accuracy on each experience right after learning it, plasticity (Riemer 2019)."""
    return _mean(_complete(_diagonal(_matrix(R)), "learning accuracy", "the diagonal"))


def average_forgetting(R: ArrayLike, dialect: Dialect = "from-learned") -> Floats:
    """F = 1/(T-1) Σ_{j<T-1} (reference_j - R[T-1, j]); positive is forgotten. The last experience has had no time.

    What an experience's accuracy is compared with differs from paper to paper, hence the dialects:

    ``from-learned``: R[j, j], right after learning it (ACN 2025; Avalanche).
    ``chaudhry2018``: max_{l<T-1} R[l, j], the best before the last row (Chaudhry 2018). Rows before ``j`` was
    learned count where they were evaluated. Negative when the last row is the best.
    ``max-all``: max_l R[l, j], the last row included, so never negative (Mammoth; PyCIL).

    For any ``R``: from-learned <= chaudhry2018 <= max-all.

    Raises:
        ValueError: unknown dialect, fewer than two experiences, or a NaN on or below the diagonal.
    """
    return _mean(forgetting(R, dialect)[..., -1, :-1])


def forgetting(R: ArrayLike, dialect: Dialect = "from-learned") -> Floats:
    """F[t, j], how much of experience ``j`` is forgotten after training on ``t > j``; NaN elsewhere.

    Shape ``(..., T, T)``. Row ``t`` is what :func:`average_forgetting` averages for a stream that ends at ``t``.
    """
    R = _stream(R, "forgetting")
    _complete(R[..., np.tri(R.shape[-1], dtype=bool)], "forgetting", "the lower triangle")
    drop = _reference(R, dialect) - R
    return np.where(np.tri(R.shape[-1], k=-1, dtype=bool), drop, np.nan)


def forgetting_by_age(R: ArrayLike, dialect: Dialect = "from-learned") -> Floats:
    """Mean forgetting 1, 2, … T-1 experiences after an experience was learned, shape ``(..., T-1)``.

    Age ``a`` averages F[j+a, j] over the T-a experiences that reach it; only the first experience reaches age T-1.
    """
    F = forgetting(R, dialect)
    ages = range(1, F.shape[-1])
    return np.stack([_diagonal(F, offset=-age).mean(axis=-1) for age in ages], axis=-1)


def backward_transfer(
    R: ArrayLike, variant: Literal["lopez-paz2017", "diaz-rodriguez2018"] = "lopez-paz2017"
) -> Floats:
    """How learning changed the accuracy on earlier experiences; negative is forgetting.

    ``lopez-paz2017``: 1/(T-1) Σ_{j<T-1} (R[T-1, j] - R[j, j]), after the last experience (eq. 3). Then
    ACC = LA + (T-1)/T · BWT exactly, and BWT = -F in the dialect ``from-learned``.
    ``diaz-rodriguez2018``: 2/(T(T-1)) Σ_{t>j} (R[t, j] - R[j, j]), over the whole stream (their BWT).
    """
    F = forgetting(R, "from-learned")
    if variant == "lopez-paz2017":
        return -_mean(F[..., -1, :-1])
    if variant == "diaz-rodriguez2018":
        return -_mean(F[..., np.tri(F.shape[-1], k=-1, dtype=bool)])
    raise ValueError(f"unknown variant {variant!r}; known: lopez-paz2017, diaz-rodriguez2018")


def forward_transfer(R: ArrayLike, initial: ArrayLike) -> Floats:
    """FWT = 1/(T-1) Σ_{j>=1} (R[j-1, j] - b_j), what earlier experiences give before learning (Lopez-Paz 2017, eq. 4).

    Args:
        R: accuracy matrix whose diagonal above the main one was evaluated. That makes sense only where one head serves
            all experiences alike (domain-incremental): an untrained head has no accuracy, an unseen class has 0.
        initial: ``(..., T)``, accuracy b_j of the network before any training.
    """
    R = _stream(R, "forward transfer")
    ahead = _complete(_diagonal(R, offset=1), "forward transfer", "the diagonal above the main one")
    baseline = _complete(_per_experience(initial, R, "initial"), "forward transfer", "initial")
    return _mean(ahead - baseline[..., 1:])


def intransigence(R: ArrayLike, joint: ArrayLike) -> Floats:
    """I = 1/T Σ_k (a*_k - R[k, k]): what is lost at learning time against joint training (Chaudhry 2018).

    Chaudhry et al. give I_k of each experience; this is its mean over k. Negative: better than the reference.

    Args:
        R: accuracy matrix.
        joint: ``(..., T)``, accuracy a*_k on experience k of a reference trained on experiences 0..k together.
    """
    R = _matrix(R)
    learned = _complete(_diagonal(R), "intransigence", "the diagonal")
    reference = _complete(_per_experience(joint, R, "joint"), "intransigence", "joint")
    return _mean(reference - learned)


def recency_gap(R: ArrayLike) -> Floats:
    """RG = R[T-1, T-1] - 1/(T-1) Σ_{j<T-1} R[T-1, j]: how much better the newest experience is known in the end.

    Ours; the accuracy's side of the recency bias of a shared output, whose predictions :func:`recency_bias` is about.
    In a task-incremental stream it is plain forgetting.
    """
    R = _stream(R, "recency gap")
    last = _complete(R[..., -1, :], "recency gap", "the last row")
    gap: Floats = last[..., -1] - _mean(last[..., :-1])
    return gap


def recency_bias(answers: ArrayLike) -> Floats:
    """RB = 1/T Σ_j answers[j, T-1] / Σ_k answers[j, k] - 1/T: what the newest experience is given beyond its due.

    The share of the predictions that fall among the classes of the last experience, minus the share that the truth
    gives it; experiences weigh the same. 0: no bias; 1 - 1/T: every image is taken for one of the last experience's.
    Ours, as a number; the bias of a shared output towards what was learned last is shown by Wu 2019 and Hou 2019, and
    called task-recency bias by Masana 2022.

    Args:
        answers: ``(..., T, T)``, how many test images of experience j got an answer among the classes of experience k,
            after the last of T experiences; at least 0.
    """
    answers = np.asarray(answers, dtype=float)
    if answers.ndim < 2 or answers.shape[-1] != answers.shape[-2]:
        raise ValueError(f"recency bias needs counts of shape (..., T, T), not {answers.shape}")
    experiences = answers.shape[-1]
    if experiences < 2:
        raise ValueError("recency bias needs at least two experiences")
    images = answers.sum(axis=-1)
    if not (images > 0).all():
        raise ValueError("recency bias needs answers to test images of every experience")
    bias: Floats = _mean(answers[..., -1] / images) - 1 / experiences
    return bias


def average_anytime_accuracy(A: ArrayLike, learning: ArrayLike | None = None) -> Floats:
    """AAA: mean over all moments of the mean accuracy on the experiences begun by then (Caccia 2022).

    Of a run evaluated only at the end of its experiences it is the average incremental accuracy.
    """
    A, learning = _trace(A, learning)
    seen = np.arange(A.shape[-1]) <= learning[:, None]
    _complete(A[..., seen], "average anytime accuracy", "the experiences begun")
    sums: Floats = np.where(seen, A, 0.0).sum(axis=-1)
    return _mean(sums / seen.sum(axis=-1))


def min_accuracy(A: ArrayLike, learning: ArrayLike | None = None) -> Floats:
    """min-ACC = 1/(T-1) Σ_{j<T-1} min_{n after j was learned} A[n, j] (De Lange 2023).

    The worst that each earlier experience ever fell to. Evaluated only at the ends of experiences it is an upper bound:
    the dip right after a switch (the stability gap) is not seen.
    """
    A, learning = _trace(A, learning)
    if A.shape[-1] < 2:
        raise ValueError("min accuracy needs at least two experiences")
    after = learning[:, None] > np.arange(A.shape[-1] - 1)
    earlier = A[..., :-1]
    _complete(earlier[..., after], "min accuracy", "the experiences already learned")
    lowest: Floats = np.where(after, earlier, np.inf).min(axis=-2)
    return _mean(lowest)


def worst_case_accuracy(A: ArrayLike, learning: ArrayLike | None = None) -> Floats:
    """WC-ACC = 1/T · A[end, T-1] + (1 - 1/T) · min-ACC: the guaranteed trade-off (De Lange 2023)."""
    lowest = min_accuracy(A, learning)
    A, _ = _trace(A, learning)
    experiences = A.shape[-1]
    newest = _mean(_complete(A[..., -1, -1:], "worst-case accuracy", "the newest experience"))
    worst: Floats = newest / experiences + (1 - 1 / experiences) * lowest
    return worst


def stability_gap(A: ArrayLike, learning: ArrayLike) -> Floats:
    """How much of each dip is won back before the experience that caused it ends; never negative.

    Mean over t >= 1 and j < t of R[t, j] - min_{n while t is learned} A[n, j], where R[t, j] is the last row of ``t``.
    The phenomenon is De Lange 2023's, who plot it and give no number: this one is ours.

    Raises:
        ValueError: an experience after the first was evaluated only at its end, where the gap cannot be seen.
    """
    A, learning = _trace(A, learning)
    gaps = []
    for t in range(1, A.shape[-1]):
        rows = A[..., learning == t, :t]
        if rows.shape[-2] < 2:
            raise ValueError(f"stability gap needs evaluations while experience {t} is learned (evaluate_every: steps)")
        _complete(rows, "stability gap", f"the experiences before {t}")
        gaps.append(rows[..., -1, :] - rows.min(axis=-2))
    if not gaps:
        raise ValueError("stability gap needs at least two experiences")
    return _mean(np.concatenate(gaps, axis=-1))


def windowed_plasticity(A: ArrayLike, learning: ArrayLike | None = None, window: int = 10) -> Floats:
    """WP = 1/T Σ_j max_{m<n, n-m<window} (A[n, j] - A[m, j]): the steepest rise (De Lange 2023, at the stream's end).

    Args:
        A: the trace.
        learning: the experience being learned at each of its rows.
        window: moments of evaluation within which a rise counts. Numbers with different windows, or with different
            distances between evaluations, are different measures.
    """
    return _steepest(A, learning, window, 1.0, "windowed plasticity")


def windowed_forgetting(A: ArrayLike, learning: ArrayLike | None = None, window: int = 10) -> Floats:
    """WF = 1/T Σ_j max_{m<n, n-m<window} (A[m, j] - A[n, j]): the steepest fall (De Lange 2023, at the stream's end).

    ``A``, ``learning`` and ``window`` as in :func:`windowed_plasticity`.
    """
    return _steepest(A, learning, window, -1.0, "windowed forgetting")


def _steepest(A: ArrayLike, learning: ArrayLike | None, window: int, sign: float, measure: str) -> Floats:
    A, _ = _trace(A, learning)
    if window < 2:
        raise ValueError(f"{measure} needs a window of at least two moments, not {window}")
    best = np.full((*A.shape[:-2], A.shape[-1]), -np.inf)
    for lag in range(1, min(window, A.shape[-2])):
        change = sign * (A[..., lag:, :] - A[..., :-lag, :])
        best = np.maximum(best, np.where(np.isnan(change), -np.inf, change).max(axis=-2))
    if np.isinf(best).any():
        raise ValueError(f"{measure} needs every experience evaluated at two moments within a window of {window}")
    return _mean(best)


def _reference(R: Floats, dialect: str) -> Floats:
    """What R[t, j] is compared with below the diagonal, shape ``(..., T, T)``."""
    if dialect == "from-learned":
        return np.broadcast_to(_diagonal(R)[..., None, :], R.shape)
    best = np.maximum.accumulate(np.where(np.isnan(R), -np.inf, R), axis=-2)
    if dialect == "max-all":
        return best
    if dialect == "chaudhry2018":
        before = np.full_like(R, np.nan)
        before[..., 1:, :] = best[..., :-1, :]
        return before
    raise ValueError(f"unknown forgetting dialect {dialect!r}; known: {', '.join(DIALECTS)}")


def _mean(values: Floats) -> Floats:
    mean: Floats = values.mean(axis=-1)
    return mean


def _diagonal(R: Floats, offset: int = 0) -> Floats:
    return np.diagonal(R, offset=offset, axis1=-2, axis2=-1)


def _matrix(R: ArrayLike) -> Floats:
    R = np.asarray(R, dtype=np.float64)
    if R.ndim < 2 or R.shape[-1] != R.shape[-2] or R.shape[-1] == 0:
        raise ValueError(f"an accuracy matrix has shape (..., T, T) with T >= 1, not {R.shape}")
    return R


def _stream(R: ArrayLike, measure: str) -> Floats:
    R = _matrix(R)
    if R.shape[-1] < 2:
        raise ValueError(f"{measure} needs at least two experiences")
    return R


def _per_experience(values: ArrayLike, R: Floats, name: str) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] != R.shape[-1]:
        raise ValueError(f"{name} has one accuracy an experience, shape (..., {R.shape[-1]}), not {values.shape}")
    return values


def _trace(A: ArrayLike, learning: ArrayLike | None) -> tuple[Floats, NDArray[np.int64]]:
    if learning is None:
        A = _matrix(A)
        return A, np.arange(A.shape[-1])
    A = np.asarray(A, dtype=np.float64)
    order: NDArray[np.int64] = np.asarray(learning, dtype=np.int64)
    if A.ndim < 2 or A.shape[-1] == 0 or order.shape != A.shape[-2:-1]:
        raise ValueError(f"a trace has shape (..., N, T) and learning (N,), not {A.shape} and {order.shape}")
    if np.any(np.diff(order) < 0) or not np.array_equal(np.unique(order), np.arange(A.shape[-1])):
        raise ValueError(f"learning must rise from 0 to {A.shape[-1] - 1} without a gap, one entry a row of the trace")
    return A, order


def _complete(values: Floats, measure: str, where: str) -> Floats:
    if np.isnan(values).any():
        raise ValueError(f"{measure} is undefined: {where} has entries that were not evaluated (NaN)")
    return values
