"""What a report measures of a run: one table, from which its columns, its definitions and its CSV come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, SupportsFloat

import numpy as np

from acn_cl import metrics
from acn_cl.depth.effective import EffectiveDepth, effective_depth
from acn_cl.metrics import DIALECTS, Dialect
from acn_cl.runs.load import Run, Runs

WINDOW = 10
"""Evaluations in the windowed measures, as in De Lange et al. 2023's first variant."""

NO_ANSWERS = "only class-incremental runs record which experience was answered"

DIALECT_NOTES: dict[Dialect, str] = {
    "from-learned": "accuracy right after learning the experience, minus the final one (ACN 2025, arXiv 2506.09714; "
    "Avalanche)",
    "chaudhry2018": "best accuracy at the end of any earlier experience, minus the final one; can be negative "
    "(Chaudhry 2018, arXiv 1801.10112)",
    "max-all": "best accuracy at the end of any experience, the last included, minus the final one; never negative "
    "(Mammoth, PyCIL)",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of one finished run.

    Attributes:
        key: its name in ``results.csv``.
        name: as a column head.
        symbol: as papers write it.
        formula: in plain text; ``R[t, j]`` is the accuracy on j after training on t, T the number of experiences.
        source: where the definition is from.
        better: which way is good; None where neither is.
        more, less: verbs for "a ... than b" in a verdict; empty where the report does not compare it.
        unit: of the numbers in the report; accuracies are shares in the API and percent here.
        scale: from the API's unit to the report's.
        dialects: of this measure, or just ("",).
        headline: whether it is in the first table.
        cost: whether it is in the cost table.
        value: the number; raises ValueError, with the reason, where it is not defined.
        reference: finds the run that ``value`` is to be held against, where it needs one.
    """

    key: str
    name: str
    symbol: str
    formula: str
    source: str
    value: Callable[..., SupportsFloat]
    better: Literal["higher", "lower"] | None
    more: str = ""
    less: str = ""
    unit: str = "%"
    scale: float = 100.0
    dialects: tuple[str, ...] = ("",)
    headline: bool = False
    cost: bool = False
    reference: Callable[[Run, Runs], Run] | None = None

    def of(self, run: Run, dialect: str, runs: Runs) -> float:
        """The number of ``run``, in the report's unit; ``runs`` are those of the report.

        Raises:
            ValueError: it is not defined there.
        """
        held_against = (self.reference(run, runs),) if self.reference else ()
        return float(self.value(run, dialect or "from-learned", *held_against)) * self.scale


def final_matrix(run: Run) -> metrics.Floats:
    """R of the whole network, ``(T, T)``."""
    R: metrics.Floats = run.by_depth[..., -1]
    return R


def run_effective_depth(run: Run) -> EffectiveDepth:
    """Of the average accuracy at the end of the stream; the tolerance is at least one image of the whole test set."""
    _check_depths(run)
    by_depth = metrics.average_accuracy(np.moveaxis(run.by_depth, -1, 0))
    return effective_depth(by_depth, samples=run.test_samples)


def depth_so_far(run: Run) -> list[int]:
    """Effective depth of the accuracy so far, after each experience; tolerance: one image of those seen, or more."""
    _check_depths(run)
    so_far = metrics.accuracy_so_far(np.moveaxis(run.by_depth, -1, 0))  # (L+1, T)
    seen = np.cumsum(run.samples)
    return [effective_depth(so_far[:, t], samples=int(seen[t])).depth for t in range(so_far.shape[1])]


def depth_of_each(run: Run, *, at_end: bool) -> list[int]:
    """Effective depth of each experience alone, right after learning it or at the end of the stream."""
    _check_depths(run)
    last = len(run.by_depth) - 1
    rows = [run.by_depth[last if at_end else j, j] for j in range(last + 1)]
    return [effective_depth(row, samples=int(n)).depth for row, n in zip(rows, run.samples, strict=True)]


def _check_depths(run: Run) -> None:
    if run.by_depth.shape[-1] < 2:
        raise ValueError("only the whole network was tested")
    if not run.samples.all():
        raise ValueError("the number of test images was not recorded")


def _depth_drift(run: Run, dialect: Dialect) -> float:
    if len(run.by_depth) < 2:
        raise ValueError("drift needs at least two experiences")
    depths = depth_so_far(run)
    return float(depths[-1] - depths[0])


def recency_bias_so_far(run: Run) -> metrics.Floats:
    """After each experience from the second on, ``(T-1,)``."""
    answers = run.answers
    if not len(answers):
        raise ValueError(NO_ANSWERS)
    return np.array([metrics.recency_bias(answers[t, : t + 1, : t + 1]) for t in range(1, len(answers))])


def _recency_bias(run: Run, dialect: Dialect) -> SupportsFloat:
    if not len(run.answers):
        raise ValueError(NO_ANSWERS)
    return metrics.recency_bias(run.answers[-1])


def _joint(run: Run, runs: Runs) -> Run:
    """The run of the same seed and settings that was trained from new weights on all experiences so far."""
    found = runs.beside(run, "joint")
    if found is None:
        raise ValueError("no finished run of strategy joint with the same seed and settings")
    return found


def _intransigence(run: Run, dialect: Dialect, joint: Run) -> SupportsFloat:
    R, reference = final_matrix(run), final_matrix(joint)
    if R.shape != reference.shape:
        raise ValueError("the joint run has another number of experiences")
    return metrics.intransigence(R, np.diagonal(reference))


def _windowed(measure: Callable[..., SupportsFloat]) -> Callable[[Run, Dialect], SupportsFloat]:
    def value(run: Run, dialect: Dialect) -> SupportsFloat:
        A, learning = run.trace()
        if len(A) == A.shape[1]:
            raise ValueError("needs evaluations within experiences (evaluate_every: steps)")
        return measure(A, learning, WINDOW)

    return value


def _under_noise(run: Run, dialect: Dialect) -> float:
    if not run.conditions:
        raise ValueError("not tested under noise")
    return float(np.mean([metrics.average_accuracy(_square(run.final(name)[:, -1])) for name in run.conditions]))


def _square(last: metrics.Floats) -> metrics.Floats:
    """A matrix of which only the last row matters."""
    return np.broadcast_to(last, (len(last), len(last)))


def _forward_transfer(run: Run, dialect: Dialect) -> float:
    if run.scenario != "domain-incremental":
        raise ValueError(f"not defined in {run.scenario}: what has not been learned has no trained output")
    return float(metrics.forward_transfer(final_matrix(run), run.initial_by_depth[..., -1]))


def _seconds(phase: str, missing: str) -> Callable[[Run, Dialect], float]:
    def value(run: Run, dialect: Dialect) -> float:
        rows = run.timing[run.timing["phase"] == phase]
        if rows.empty:
            raise ValueError(missing)
        return float(rows["seconds"].sum())

    return value


_training_time = _seconds("train", "no training time was recorded")


def _throughput(run: Run, dialect: Dialect) -> float:
    rows = run.timing[run.timing["phase"] == "train"]
    if not rows["samples"].sum() > 0 or not rows["seconds"].sum() > 0:
        raise ValueError("no training time was recorded")
    return float(rows["samples"].sum() / rows["seconds"].sum())


def _recorded(key: str, what: str) -> Callable[[Run, Dialect], float]:
    def value(run: Run, dialect: Dialect) -> float:
        if run.spec.get(key) is None:
            raise ValueError(f"{what} was not recorded")
        return float(run.spec[key])

    return value


def flops(run: Run) -> metrics.Floats:
    """Operations of sub-networks 0..L on one image, ``(L+1,)``.

    Raises:
        ValueError: not recorded, or not for every depth.
    """
    recorded = run.spec.get("flops_by_depth")
    if recorded is None:
        raise ValueError("operations by depth were not recorded")
    depths = run.by_depth.shape[-1]
    if len(recorded) != depths or not all(isinstance(x, int | float) and x > 0 for x in recorded):
        raise ValueError(f"operations by depth are not {depths} positive numbers")
    return np.asarray(recorded, dtype=np.float64)


def _flops_kept(run: Run, dialect: Dialect) -> float:
    by_depth = flops(run)
    return float(by_depth[run_effective_depth(run).depth] / by_depth[-1])


def _per_gflop(run: Run, depth: int) -> float:
    accuracy = metrics.average_accuracy(run.by_depth[..., depth])
    return float(accuracy / (flops(run)[depth] / 1e9))


MEASURES: tuple[Measure, ...] = (
    Measure(
        key="average_accuracy",
        name="Average accuracy",
        symbol="ACC",
        formula="1/T Σ_j R[T, j], after the last experience",
        source="Lopez-Paz & Ranzato 2017, arXiv 1706.08840",
        value=lambda run, dialect: metrics.average_accuracy(final_matrix(run)),
        better="higher",
        more="ends {} points more accurate than",
        less="ends {} points less accurate than",
        headline=True,
    ),
    Measure(
        key="average_forgetting",
        name="Forgetting",
        symbol="F",
        formula="1/(T-1) Σ_{j<T} (reference_j - R[T, j]); the dialect says what the reference is",
        source="; ".join(f"{dialect}: {note}" for dialect, note in DIALECT_NOTES.items()),
        value=lambda run, dialect: metrics.average_forgetting(final_matrix(run), dialect),
        better="lower",
        more="forgets {} points more than",
        less="forgets {} points less than",
        dialects=DIALECTS,
        headline=True,
    ),
    Measure(
        key="learning_accuracy",
        name="Learning accuracy",
        symbol="LA",
        formula="1/T Σ_j R[j, j], right after learning each",
        source="Riemer et al. 2019, arXiv 1810.11910",
        value=lambda run, dialect: metrics.learning_accuracy(final_matrix(run)),
        better="higher",
        more="learns each experience {} points better than",
        less="learns each experience {} points worse than",
        headline=True,
    ),
    Measure(
        key="average_incremental_accuracy",
        name="Average incremental accuracy",
        symbol="AIA",
        formula="1/T Σ_t 1/t Σ_{j≤t} R[t, j]",
        source="Rebuffi et al. 2017, arXiv 1611.07725",
        value=lambda run, dialect: metrics.average_incremental_accuracy(final_matrix(run)),
        better="higher",
        headline=True,
    ),
    Measure(
        key="effective_depth",
        name="Effective depth",
        more="uses {} layers more than",
        less="uses {} layers fewer than",
        symbol="k*",
        formula="the least k with accuracy(j) ≥ accuracy(L) - tolerance for all j ≥ k, of the average accuracy at the "
        "end of the stream; tolerance: half a point, or one test image if that is more",
        source="ACN 2025, arXiv 2506.09714, section 4 (there: cutoff layer)",
        value=lambda run, dialect: run_effective_depth(run).depth,
        better=None,
        unit="layers",
        scale=1.0,
        headline=True,
    ),
    Measure(
        key="effective_depth_drift",
        name="Drift of the effective depth",
        symbol="Δk*",
        formula="k*(T) - k*(1), where k*(t) is the effective depth of the average accuracy on experiences 1..t after "
        "training on t",
        source="ours",
        value=_depth_drift,
        better=None,
        unit="layers",
        scale=1.0,
    ),
    Measure(
        key="backward_transfer",
        name="Backward transfer",
        symbol="BWT",
        formula="1/(T-1) Σ_{j<T} (R[T, j] - R[j, j]); ACC = LA + (T-1)/T · BWT",
        source="Lopez-Paz & Ranzato 2017, arXiv 1706.08840",
        value=lambda run, dialect: metrics.backward_transfer(final_matrix(run)),
        better="higher",
    ),
    Measure(
        key="backward_transfer_whole_stream",
        name="Backward transfer, whole stream",
        symbol="BWT′",
        formula="2/(T(T-1)) Σ_{t>j} (R[t, j] - R[j, j])",
        source="Díaz-Rodríguez et al. 2018, arXiv 1810.13166",
        value=lambda run, dialect: metrics.backward_transfer(final_matrix(run), "diaz-rodriguez2018"),
        better="higher",
    ),
    Measure(
        key="forward_transfer",
        name="Forward transfer",
        symbol="FWT",
        formula="1/(T-1) Σ_{j>1} (R[j-1, j] - b_j), b_j: before any training",
        source="Lopez-Paz & Ranzato 2017, arXiv 1706.08840; defined where one head serves all (domain-incremental)",
        value=_forward_transfer,
        better="higher",
    ),
    Measure(
        key="average_anytime_accuracy",
        name="Average anytime accuracy",
        symbol="AAA",
        formula="mean over all evaluations of the accuracy on what has begun; AIA if evaluated at the ends only",
        source="Caccia et al. 2022, arXiv 2104.05025",
        value=lambda run, dialect: metrics.average_anytime_accuracy(*run.trace()),
        better="higher",
    ),
    Measure(
        key="min_accuracy",
        name="Minimum accuracy",
        symbol="min-ACC",
        formula="1/(T-1) Σ_{j<T} min over evaluations after j was learned of the accuracy on j",
        source="De Lange et al. 2023, arXiv 2205.13452; an upper bound without evaluations within experiences",
        value=lambda run, dialect: metrics.min_accuracy(*run.trace()),
        better="higher",
    ),
    Measure(
        key="worst_case_accuracy",
        name="Worst-case accuracy",
        symbol="WC-ACC",
        formula="1/T · R[T, T] + (1 - 1/T) · min-ACC",
        source="De Lange et al. 2023, arXiv 2205.13452",
        value=lambda run, dialect: metrics.worst_case_accuracy(*run.trace()),
        better="higher",
    ),
    Measure(
        key="stability_gap",
        name="Stability gap",
        symbol="SG",
        formula="mean over t>j of R[t, j] - min while t is learned of the accuracy on j",
        source="ours; the phenomenon is De Lange et al. 2023's, arXiv 2205.13452",
        value=lambda run, dialect: metrics.stability_gap(*run.trace()),
        better="lower",
    ),
    Measure(
        key="windowed_plasticity",
        name="Windowed plasticity",
        symbol=f"WP-{WINDOW}",
        formula=f"1/T Σ_j of the steepest rise of the accuracy on j within {WINDOW} evaluations",
        source="De Lange et al. 2023, arXiv 2205.13452; depends on how often the run was evaluated",
        value=_windowed(metrics.windowed_plasticity),
        better="higher",
    ),
    Measure(
        key="windowed_forgetting",
        name="Windowed forgetting",
        symbol=f"WF-{WINDOW}",
        formula=f"1/T Σ_j of the steepest fall of the accuracy on j within {WINDOW} evaluations",
        source="De Lange et al. 2023, arXiv 2205.13452; depends on how often the run was evaluated",
        value=_windowed(metrics.windowed_forgetting),
        better="lower",
    ),
    Measure(
        key="intransigence",
        name="Intransigence",
        symbol="I",
        formula="1/T Σ_k (a*_k - R[k, k]), a*_k: accuracy on k of the run of the same seed and settings with strategy "
        "joint, after training on experiences 1..k together",
        source="Chaudhry et al. 2018, arXiv 1801.10112 (there I_k of each k)",
        value=_intransigence,
        better="lower",
        reference=_joint,
    ),
    Measure(
        key="recency_gap",
        name="Recency gap",
        symbol="RG",
        formula="R[T, T] - 1/(T-1) Σ_{j<T} R[T, j]: how much better the newest experience is known in the end",
        source="ours; the accuracy's side of the recency bias of a shared output",
        value=lambda run, dialect: metrics.recency_gap(final_matrix(run)),
        better="lower",
    ),
    Measure(
        key="recency_bias",
        name="Recency bias",
        symbol="RB",
        formula="1/T Σ_j answers[j, T] / Σ_k answers[j, k] - 1/T: the share of the predictions that the newest "
        "experience gets in the end, minus its due; answers[j, k]: images of experience j taken for a class of k",
        source="ours, as a number; the bias is Wu et al. 2019's (arXiv 1905.13260), named by Masana et al. 2022 (arXiv "
        "2010.15277)",
        value=_recency_bias,
        better=None,
    ),
    Measure(
        key="accuracy_under_noise",
        name="Accuracy under noise",
        symbol="ACC-n",
        formula="mean over the corruptions tested of the average accuracy after the last experience",
        source="ACN 2025, arXiv 2506.09714",
        value=_under_noise,
        better="higher",
        more="is {} points more accurate under noise than",
        less="is {} points less accurate under noise than",
    ),
    Measure(
        key="training_time",
        name="Training time",
        symbol="time",
        formula="seconds of training over the whole stream; tests are not counted, but those within an experience are",
        source="timing.parquet",
        value=_training_time,
        better="lower",
        unit="s",
        scale=1.0,
        headline=True,
        cost=True,
    ),
    Measure(
        key="evaluation_time",
        name="Evaluation time",
        symbol="time-e",
        formula="seconds of evaluation over the whole stream",
        source="timing.parquet",
        value=_seconds("evaluate", "no evaluation time was recorded"),
        better="lower",
        unit="s",
        scale=1.0,
        cost=True,
    ),
    Measure(
        key="saving_time",
        name="Saving time",
        symbol="time-s",
        formula="seconds of saving checkpoints and results",
        source="timing.parquet",
        value=_seconds("save", "no saving time was recorded"),
        better="lower",
        unit="s",
        scale=1.0,
        cost=True,
    ),
    Measure(
        key="training_speed",
        name="Training speed",
        symbol="speed",
        formula="training images a second; of a run in a stack, its share of the stack's time counts",
        source="timing.parquet",
        value=_throughput,
        better="higher",
        unit="1/s",
        scale=1.0,
        cost=True,
    ),
    Measure(
        key="peak_memory",
        name="Peak memory",
        symbol="mem",
        formula="largest memory taken on the GPU during the run, or that of the process that ran it; of a whole stack",
        source="spec.json",
        value=_recorded("peak_memory", "peak memory"),
        better="lower",
        unit="MiB",
        scale=2.0**-20,
        cost=True,
    ),
    Measure(
        key="parameters",
        name="Parameters",
        symbol="P",
        formula="parameters of the backbone, without the heads",
        source="spec.json",
        value=_recorded("parameters", "the number of parameters"),
        better=None,
        unit="",
        scale=1.0,
        cost=True,
    ),
    Measure(
        key="flops",
        name="Operations",
        symbol="FLOPs",
        formula="floating-point operations of one image's forward pass through the whole network",
        source="spec.json (flops_by_depth)",
        value=lambda run, dialect: flops(run)[-1],
        better="lower",
        unit="MFLOP",
        scale=1e-6,
        cost=True,
    ),
    Measure(
        key="flops_kept",
        name="Operations kept",
        symbol="FLOPs-k*",
        formula="operations of the sub-network of the effective depth, as a share of the whole network's",
        source="spec.json (flops_by_depth); ACN 2025, arXiv 2506.09714",
        value=_flops_kept,
        better="lower",
        cost=True,
    ),
    Measure(
        key="accuracy_per_gflop",
        name="Accuracy per GFLOP",
        symbol="ACC/GFLOP",
        formula="average accuracy over operations of the whole network on one image",
        source="spec.json (flops_by_depth)",
        value=lambda run, dialect: _per_gflop(run, -1),
        better="higher",
        unit="%/GFLOP",
        cost=True,
    ),
    Measure(
        key="accuracy_per_gflop_kept",
        name="Accuracy per GFLOP, kept",
        symbol="ACC/GFLOP-k*",
        formula="the same of the sub-network of the effective depth",
        source="spec.json (flops_by_depth)",
        value=lambda run, dialect: _per_gflop(run, run_effective_depth(run).depth),
        better="higher",
        unit="%/GFLOP",
        cost=True,
    ),
)

HEADLINE = tuple(measure for measure in MEASURES if measure.headline)
BY_KEY = {measure.key: measure for measure in MEASURES}
COMPARED = tuple(BY_KEY[key] for key in ("average_accuracy", "average_forgetting", "learning_accuracy"))
"""What every report compares; a recipe may declare others that have verbs."""
