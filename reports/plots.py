"""Which figures a report has: what each shows, of which experiments, and the numbers behind it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes

from acn_cl import stats
from acn_cl.metrics import DIALECTS, Floats
from acn_cl.reports import curves, figures, labels, sensitivity
from acn_cl.reports.confusion import Confusion, confusions
from acn_cl.reports.curves import Curve, Curves
from acn_cl.reports.figures import slug
from acn_cl.reports.measures import COMPARED, Measure
from acn_cl.reports.results import Results
from acn_cl.reports.words import digits, number
from acn_cl.runs.load import Runs


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure, not yet drawn.

    Attributes:
        section: of the page that it stands in.
        file: its name, without an ending.
        title: which experiments it shows.
        caption: what is drawn.
        draw: draws it on the axes it is given.
        head, rows: the numbers that it draws, as text.
        dialect: of forgetting, if it depends on that.
        measure: the compared measure that it is about, if any.
        paper: whether it is also written in a paper's formats; else as SVG alone.
    """

    section: str
    file: str
    title: str
    caption: str
    draw: Callable[[Axes], None]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    dialect: str = ""
    measure: str = ""
    paper: bool = True


def plots(runs: Runs, results: Results) -> Iterator[Plot]:
    """Every figure that these runs can fill, in the order of the page."""
    looks, names = labels.looks(runs), labels.labels(runs)
    for title, members in labels.panels(runs).items():
        panel = Panel(runs, results, title, members, looks, names)
        yield from panel.plane()
        yield from panel.strips()
        yield from panel.along_the_stream()
        yield from panel.recency()
        yield from panel.by_depth()
        yield from panel.depth_over_the_stream()
        yield from panel.by_layer()
        yield from panel.cost()
    yield from _one_by_one(runs, results, names)
    yield from _sensitivity(runs, results)


SINGLE_FIGURES = 24
"""Experiments up to which each has figures of its own (per-task curves, gradient by epoch); more would be a pile."""


def _one_by_one(runs: Runs, results: Results, names: Mapping[str, str]) -> Iterator[Plot]:
    """The figures that show one experiment each."""
    confused = confusions(runs)
    for name in results.experiments:
        if len(results.experiments) <= SINGLE_FIGURES:
            yield from _tasks(runs, name, names)
            yield from _by_epoch(runs, name, names)
        yield Plot(
            section="matrices",
            file=slug(f"matrix-{name}"),
            title=names[name],
            caption="Accuracy matrix (%), mean over seeds.",
            draw=partial(figures.matrix, R=100 * curves.mean_matrix(runs.finished(name))),
        )
        yield from _confusion(name, names, confused)


def _confusion(name: str, names: Mapping[str, str], found: Mapping[str, Confusion]) -> Iterator[Plot]:
    if name in found:
        yield Plot(
            section="confusions",
            file=slug(f"confusion-{name}"),
            title=names[name],
            caption="Confusion between experiences at the end of the stream (%), mean over seeds.",
            draw=partial(
                figures.matrix,
                R=found[name].mean,
                labels=("answered with a class of experience", "images of experience"),
            ),
        )


def _tasks(runs: Runs, name: str, names: Mapping[str, str]) -> Iterator[Plot]:
    R = 100 * curves.cubes(runs.finished(name))[..., -1]
    n, T = R.shape[:2]
    if T < 2:
        return
    mean, std, _ = (part.reshape(T, T) for part in stats.band(R.reshape(n, T * T)))
    yield Plot(
        section="tasks",
        file=slug(f"tasks-{name}"),
        title=names[name],
        caption=f"Accuracy on each experience along the stream, from light (1) to dark ({T}). Thin: each "
        "seed; from five seeds on, 95 % bands.",
        draw=partial(figures.tasks, R=R),
        paper=False,
        head=("experience", *(f"after {t}" for t in range(1, T + 1))),
        rows=[(f"{j + 1}", *_cells(mean[:, j], std[:, j], number)) for j in range(T)],
    )


def _by_epoch(runs: Runs, name: str, names: Mapping[str, str]) -> Iterator[Plot]:
    try:
        values, epochs = curves.gradient_by_epoch(runs.finished(name))
    except ValueError:
        return
    yield Plot(
        section="layers-over-time",
        file=slug(f"gradient-by-epoch-{name}"),
        title=names[name],
        caption="Norm of the loss's gradient by layer and epoch, mean over seeds; a line: a new experience. 0: "
        "the embedding; 1 to L: the blocks; L+1: what comes after the last.",
        draw=partial(figures.by_epoch, values=values, epochs=epochs),
        paper=False,
        head=("layer", *(f"{i + 1}" for i in range(values.shape[1]))),
        rows=[(f"{layer}", *map(digits, row)) for layer, row in enumerate(values)],
    )


@dataclass(frozen=True, eq=False)
class Panel:
    """A few experiments that share their figures."""

    runs: Runs
    results: Results
    title: str
    members: Sequence[str]
    looks: Mapping[str, labels.Look]
    names: Mapping[str, str]

    def plane(self) -> Iterator[Plot]:
        """Stability against plasticity."""
        learning, forgetting = self._seeds("learning_accuracy"), self._seeds("average_forgetting", "from-learned")
        points = {name: (learning[name], forgetting[name]) for name in forgetting if name in learning}
        if points:
            experiences = len(self.runs.finished(next(iter(points)))[0].by_depth)
            yield Plot(
                section="trade-off",
                file="stability-plasticity",
                title=self.title,
                caption="Stability against plasticity; large: means, small: seeds. Grey lines: equal average accuracy, "
                "ACC = LA - (T-1)/T · F, exact for the dialect from-learned. Better is right and down.",
                draw=partial(figures.plane, points=points, looks=self.looks, names=self.names, experiences=experiences),
                head=("experiment", "learning accuracy (%)", "forgetting (%)"),
                rows=[(self.names[n], number(x.mean()), number(y.mean())) for n, (x, y) in points.items()],
            )

    def strips(self) -> Iterator[Plot]:
        """Every seed of every compared measure."""
        for measure in COMPARED:
            for dialect in measure.dialects:
                if seeds := self._seeds(measure.key, dialect):
                    name = measure.name.lower()
                    yield Plot(
                        section="trade-off",
                        file=slug(f"seeds-{name}-{dialect}"),
                        title=self.title,
                        caption=f"{measure.name}{f', {dialect}' if dialect else ''}: every seed, and the mean with its "
                        f"95 % interval; {measure.better} is better.",
                        draw=partial(
                            figures.strips, values=seeds, looks=self.looks, names=self.names, xlabel=f"{name} (%)"
                        ),
                        head=("experiment", "seeds"),
                        rows=[(self.names[n], ", ".join(map(number, values))) for n, values in seeds.items()],
                        dialect=dialect,
                        measure=measure.key,
                    )

    def along_the_stream(self) -> Iterator[Plot]:
        """Accuracy so far, and forgetting against age."""
        yield from self._lines(
            curves.accuracy_so_far(self.runs, self.members),
            section="time",
            file="accuracy-so-far",
            caption="Accuracy on all experiences seen so far (macro average). Thin: each seed; from five seeds on, "
            "95 % bands.",
            labels=("experiences learned", "accuracy so far (%)"),
        )
        for dialect in DIALECTS:
            yield from self._lines(
                curves.forgetting_by_age(self.runs, self.members, dialect),
                section="time",
                file=f"forgetting-by-age-{dialect}",
                caption=f"Forgetting against age ({dialect}): mean over the experiences that reach the age; the "
                "greatest age is the first experience alone.",
                labels=("experiences since it was learned", "forgetting (%)"),
                dialect=dialect,
            )

    def recency(self) -> Iterator[Plot]:
        """What the newest experience is given beyond its due."""
        yield from self._lines(
            curves.recency_bias(self.runs, self.members),
            section="confusion",
            file="recency-bias",
            caption="Recency bias: the share of predictions that fall among the newest experience's classes, minus the "
            "share that the truth gives it, on the test images of all experiences seen. Above 0: images of older "
            "experiences are taken for new ones.",
            labels=("experiences learned", "recency bias (points)"),
        )

    def by_depth(self) -> Iterator[Plot]:
        """Accuracy and forgetting of the sub-networks."""
        yield from self._lines(
            curves.accuracy_by_depth(self.runs, self.members),
            section="depth",
            file="accuracy-by-depth",
            caption="Average accuracy at the end of the stream, by the depth of the sub-network that answers; ring: "
            "effective depth, mean over seeds.",
            labels=("depth of the sub-network", "average accuracy (%)"),
            rings={name: float(seeds.mean()) for name, seeds in self._seeds("effective_depth").items()},
        )
        for dialect in DIALECTS:
            yield from self._lines(
                curves.forgetting_by_depth(self.runs, self.members, dialect),
                section="depth",
                file=f"forgetting-by-depth-{dialect}",
                caption=f"Average forgetting ({dialect}), by the depth of the sub-network that answers. A sub-network "
                "that never knew anything forgets nothing: read it beside the accuracy.",
                labels=("depth of the sub-network", "forgetting (%)"),
                dialect=dialect,
            )

    def depth_over_the_stream(self) -> Iterator[Plot]:
        """Effective depth, and how it drifts."""
        note = "Tolerance: half a point, or one test image if that is more."
        for file, shown, caption, xlabel in (
            (
                "effective-depth-so-far",
                curves.depth_so_far(self.runs, self.members),
                "Effective depth of the average accuracy on the experiences seen so far: its drift over the stream.",
                "experiences learned",
            ),
            (
                "effective-depth-when-learned",
                curves.depth_when_learned(self.runs, self.members),
                "Effective depth of each experience alone, right after learning it.",
                "experience",
            ),
            (
                "effective-depth-at-the-end",
                curves.depth_at_end(self.runs, self.members),
                "Effective depth of each experience alone, at the end of the stream; 0 where it is wholly forgotten.",
                "experience",
            ),
        ):
            yield from self._lines(
                shown,
                section="depth",
                file=file,
                caption=f"{caption} {note}",
                labels=(xlabel, "effective depth (layers)"),
                least=-0.2,
            )

    def cost(self) -> Iterator[Plot]:
        """Accuracy against operations."""
        shown = curves.accuracy_by_flops(self.runs, self.members)
        depths = self._seeds("effective_depth")
        rings = {
            name: float(np.interp(depths[name].mean(), np.arange(len(curve.x)), curve.x))
            for name, curve in shown.items()
            if name in depths
        }
        if shown:
            yield Plot(
                section="cost",
                file="accuracy-by-operations",
                title=self.title,
                caption="Average accuracy at the end of the stream against the operations of the sub-network that "
                "answers, one image; ring: effective depth, mean over seeds.",
                draw=partial(
                    figures.lines,
                    curves=shown,
                    looks=self.looks,
                    names=self.names,
                    labels=("operations (MFLOP)", "average accuracy (%)"),
                    rings=rings,
                    log="",
                ),
                head=("experiment", "depth", "operations (MFLOP)", "average accuracy (%)"),
                rows=[
                    (self.names[name], f"{depth}", f"{x:.3g}", *_cells(mean, std, number))
                    for name, curve in shown.items()
                    for depth, (x, mean, std) in enumerate(_points(curve))
                ],
            )

    def by_layer(self) -> Iterator[Plot]:
        """What training did to the layers."""
        yield from self._lines(
            curves.gradient_by_layer(self.runs, self.members),
            section="layers",
            file="gradient-by-layer",
            caption="Norm of the loss's gradient, by layer: mean over all steps. 0: the embedding; 1 to L: the blocks; "
            "L+1: what comes after the last.",
            labels=("layer", "gradient norm"),
            log="y",
        )
        shares = curves.importance_by_layer(self.runs, self.members)
        signed = [self.names[name] for name in self.members if name not in shares and self._records("importance", name)]
        yield from self._lines(
            shares,
            section="layers",
            file="importance-by-layer",
            caption="Importance that the regulariser gives to each layer at the end of the stream, as a share of its "
            "sum over all parameters. A layer with more parameters has a larger share of an importance that is the "
            "same everywhere."
            + (f" No shares (negative in a layer, or 0 in all): {', '.join(signed)}." if signed else ""),
            labels=("layer", "share of the importance (%)"),
        )
        yield from self._lines(
            curves.at_end_of_experiences(self.runs, self.members, "direct_gradient_share"),
            section="layers",
            file="direct-gradient-share",
            caption="Share of the direct gradient, right from the output, in the whole gradient that reaches a layer's "
            "output, ‖DG‖/‖FG‖, on training images of the experience just learned: mean over the ends of experiences. "
            "Wirings without a direct path have none.",
            labels=("layer", "direct / full gradient"),
            text=digits,
        )
        yield from self.drift()

    def drift(self) -> Iterator[Plot]:
        """How far the features of the first experience have gone from what they were when it was learned."""
        what = "linear CKA between the features of the first experience's test images now and right after learning it"
        yield from self._lines(
            curves.at_the_end(self.runs, self.members, "cka"),
            section="layers",
            file="cka",
            caption=f"Drift: {what}, at the end of the stream, by the depth of the sub-network. 1: unchanged but for "
            "rotation and scale.",
            labels=("depth of the sub-network", "CKA"),
            text=digits,
        )
        yield from self._lines(
            curves.over_the_stream(self.runs, self.members, "cka"),
            section="layers",
            file="cka-over-the-stream",
            caption=f"Drift over the stream: {what}, of the whole network.",
            labels=("experiences learned", "CKA"),
            text=digits,
        )

    def _lines(
        self,
        shown: Curves,
        *,
        section: str,
        file: str,
        caption: str,
        labels: tuple[str, str],
        dialect: str = "",
        rings: Mapping[str, float] | None = None,
        log: str = "",
        text: Callable[[float], str] | None = None,
        least: float = -np.inf,
    ) -> Iterator[Plot]:
        if shown:
            yield Plot(
                section=section,
                file=file,
                title=self.title,
                caption=caption,
                draw=partial(
                    figures.lines,
                    curves=shown,
                    looks=self.looks,
                    names=self.names,
                    labels=labels,
                    rings=rings or {},
                    log=log,
                    least=least,
                ),
                head=("experiment", *(f"{x:.0f}" for x in max((curve.x for curve in shown.values()), key=len))),
                rows=[
                    (self.names[name], *_cells(*curve.band[:2], text or (digits if log else number)))
                    for name, curve in shown.items()
                ],
                dialect=dialect,
            )

    def _records(self, quantity: str, experiment: str) -> bool:
        """Whether any finished seed recorded this quantity of its layers."""
        return any((run.layers["quantity"] == quantity).any() for run in self.runs.finished(experiment))

    def _seeds(self, measure: str, dialect: str = "") -> dict[str, Floats]:
        """The members' values of one measure, where it is defined."""
        shown = [name for name in self.members if name in self.results.experiments]
        found = [self.results.of(name, measure, dialect) for name in shown]
        return {result.experiment: result.values for result in found if not result.undefined}


def _sensitivity(runs: Runs, results: Results) -> Iterator[Plot]:
    """Every compared measure against every number that the recipe varies, one line a group of experiments."""
    found = sorted(sensitivity.sweeps(runs), key=lambda sweep: (sweep.stream, sweep.setting))
    for (stream, setting), group in groupby(found, key=lambda sweep: (sweep.stream, sweep.setting)):
        for sweeps in labels.chunks([[sweep] for sweep in group]):
            distinct = len({sweep.name for sweep in sweeps}) == len(sweeps)
            for measure, dialect in ((m, d) for m in COMPARED for d in m.dialects):
                drawn = [(sweep, sensitivity.curve(results, sweep, measure.key, dialect)) for sweep in sweeps]
                shown = {sweep.name if distinct else sweep.experiments[0]: curve for sweep, curve in drawn if curve}
                if shown:
                    yield _sweep(stream, setting, measure, dialect, shown)


def _sweep(stream: str, setting: str, measure: Measure, dialect: str, shown: Curves) -> Plot:
    values = np.concatenate([curve.x for curve in shown.values()])
    log = "x" if values.min() > 0 and values.max() >= 10 * values.min() else ""
    rows = [(name, f"{x:g}", *_cells(m, s, number)) for name, curve in shown.items() for x, m, s in _points(curve)]
    return Plot(
        section="sensitivity",
        file=slug(f"sensitivity-{setting}-{measure.key}-{dialect}"),
        title=stream,
        caption=f"{measure.name}{f', {dialect}' if dialect else ''}, against {setting}, all else equal; on the seeds "
        f"that all values of a line have; {measure.better} is better.",
        draw=partial(
            figures.lines,
            curves=shown,
            looks={name: labels.numbered(index) for index, name in enumerate(shown)},
            names={name: name for name in shown},
            labels=(setting, f"{measure.name.lower()} (%)"),
            rings={},
            log=log,
        ),
        head=("experiments", setting, f"{measure.name.lower()} (%)"),
        rows=rows,
        dialect=dialect,
        measure=measure.key,
    )


def _points(curve: Curve) -> Iterator[tuple[float, Floats, Floats]]:
    mean, std, _ = curve.band
    for index, x in enumerate(curve.x):
        yield float(x), mean[index : index + 1], std[index : index + 1]


def _cells(mean: Floats, std: Floats, text: Callable[[float], str]) -> list[str]:
    return [f"{text(m)} ± {text(s)}" if np.isfinite(s) else text(m) for m, s in zip(mean, std, strict=True)]
