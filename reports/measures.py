"""What a report measures of a run: one table, from which its columns, its definitions and its CSV come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, SupportsFloat

import numpy as np

from acn_cl import metrics
from acn_cl.depth.effective import EffectiveDepth, effective_depth
from acn_cl.metrics import DIALECTS, Dialect
from acn_cl.runs.load import Run

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
        value: the number; raises ValueError, with the reason, where it is not defined.
    """

    key: str
    name: str
    symbol: str
    formula: str
    source: str
    value: Callable[[Run, Dialect], SupportsFloat]
    better: Literal["higher", "lower"] | None
    more: str = ""
    less: str = ""
    unit: str = "%"
    scale: float = 100.0
    dialects: tuple[str, ...] = ("",)
    headline: bool = False

    def of(self, run: Run, dialect: str) -> float:
        """The number of ``run``, in the report's unit.

        Raises:
            ValueError: it is not defined there.
        """
        return float(self.value(run, dialect or "from-learned")) * self.scale  # type: ignore[arg-type]


def final_matrix(run: Run) -> metrics.Floats:
    """R of the whole network, ``(T, T)``."""
    R: metrics.Floats = run.by_depth[..., -1]
    return R


def run_effective_depth(run: Run) -> EffectiveDepth:
    """Of the average accuracy at the end of the stream; the tolerance is at least one image of the whole test set."""
    by_depth = metrics.average_accuracy(np.moveaxis(run.by_depth, -1, 0))
    return effective_depth(by_depth, samples=run.test_samples)


def _forward_transfer(run: Run, dialect: Dialect) -> float:
    if run.scenario != "domain-incremental":
        raise ValueError(f"not defined in {run.scenario}: what has not been learned has no trained output")
    return float(metrics.forward_transfer(final_matrix(run), run.initial_by_depth[..., -1]))


def _training_time(run: Run, dialect: Dialect) -> float:
    training = run.timing[run.timing["phase"] == "train"]
    if training.empty:
        raise ValueError("no training time was recorded")
    return float(training["seconds"].sum())


def _parameters(run: Run, dialect: Dialect) -> float:
    if "parameters" not in run.spec:
        raise ValueError("the number of parameters was not recorded")
    return float(run.spec["parameters"])


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
        key="training_time",
        name="Training time",
        symbol="time",
        formula="seconds of training over the whole stream; evaluation is not counted",
        source="timing.parquet",
        value=_training_time,
        better="lower",
        unit="s",
        scale=1.0,
        headline=True,
    ),
    Measure(
        key="parameters",
        name="Parameters",
        symbol="P",
        formula="trainable parameters, heads included",
        source="spec.json",
        value=_parameters,
        better=None,
        unit="",
        scale=1.0,
    ),
)

HEADLINE = tuple(measure for measure in MEASURES if measure.headline)
COMPARED = tuple(measure for measure in MEASURES if measure.more)
