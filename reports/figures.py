"""The figures. Each function draws on the axes it is given and computes nothing; :func:`save` writes the file."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from acn_cl.metrics import Floats
from acn_cl.reports.curves import Curve
from acn_cl.reports.labels import NEUTRAL, Look
from acn_cl.stats import band

INK, FAINT, GROUND = NEUTRAL, "#c9ced6", "#ffffff"
SEEDS_FOR_A_BAND = 5
"""With fewer, the intervals of several lines cover the figure and each other; the seeds themselves are drawn."""
WIDTH, HEIGHT = 4.8, 3.4
"""Inches: one column of a paper, and readable unscaled on a phone."""
LONGEST_NAME = 48
PNG_DPI = 200
METADATA: dict[str, dict[str, Any]] = {  # no dates: the same figure is the same file
    "svg": {"Date": None, "Creator": "acn_cl"},
    "pdf": {"CreationDate": None, "Creator": "acn_cl"},
    "png": {"Software": "acn_cl"},
}
FORMATS = tuple(METADATA)

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the reader's font and colour
    "pdf.fonttype": 42,  # TrueType: conferences refuse the Type 3 fonts of matplotlib's default
    "svg.hashsalt": "acn_cl",  # the same figure is the same file
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 3,  # long enough to tell the dashes apart
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
}

SEQUENTIAL, DIVERGING = "YlGnBu", "PuOr"
"""Colour maps of accuracies and of differences: readable with any colour vision, the first also in grey."""


def new(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure of the report's style, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def lines(
    ax: Axes,
    curves: Mapping[str, Curve],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    labels: tuple[str, str],
    rings: Mapping[str, float],
    log: str,
    least: float = -np.inf,
) -> None:
    """Means over seeds, one line an experiment, with each seed or a 95 % band; a ring at a place along x.

    ``log`` names the axes with a logarithmic scale: "", "x", "y" or "xy"; the y axis begins at ``least`` or above.
    """
    for experiment, curve in curves.items():
        mean, _, half = curve.band
        look = looks[experiment]
        ax.plot(curve.x, mean, color=look.colour, ls=look.dash, marker=look.marker, label=literal(names[experiment]))
        if len(curve.seeds) >= SEEDS_FOR_A_BAND:
            ax.fill_between(curve.x, mean - half, mean + half, color=look.colour, alpha=0.15, linewidth=0)
        elif len(curve.seeds) > 1:
            ax.plot(curve.x, curve.seeds.T, color=look.colour, ls=look.dash, lw=0.6, alpha=0.4)
        if experiment in rings:
            x = rings[experiment]
            ax.plot([x], [np.interp(x, curve.x, mean)], "o", ms=11, mfc="none", mec=look.colour, mew=1.5)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in log:
        _logarithmic(ax, axis)
    if ax.get_ylim()[0] < least:
        ax.set_ylim(bottom=least)
    legend_below(ax)


def _logarithmic(ax: Axes, axis: str) -> None:
    scale, ticks = {"x": (ax.set_xscale, ax.xaxis), "y": (ax.set_yscale, ax.yaxis)}[axis]
    scale("log")
    ticks.set_major_locator(LogLocator(subs=(1,) if axis == "x" else (1, 2, 5)))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_locator(NullLocator())


def plane(
    ax: Axes,
    points: Mapping[str, tuple[Floats, Floats]],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    experiences: int,
) -> None:
    """Learning accuracy against forgetting (``from-learned``), seeds as points, with lines of equal final accuracy.

    The lines are exact: ACC = LA - (T-1)/T · F.
    """
    for experiment, (learning, forgetting) in points.items():
        look = looks[experiment]
        marker: dict[str, Any] = {"marker": look.marker, "fillstyle": look.fill, "markerfacecoloralt": GROUND}
        ax.plot(learning, forgetting, ls="", ms=3.5, mew=0.6, alpha=0.6, color=look.colour, **marker)
        mean, name = ([learning.mean()], [forgetting.mean()]), literal(names[experiment])
        ax.plot(*mean, ls="", ms=9, mew=1.5, color=look.colour, label=name, **marker)
    _iso_accuracy(ax, experiences)
    ax.set_xlabel("learning accuracy (%)")
    ax.set_ylabel("forgetting, from learned (%)")
    legend_below(ax)


def _iso_accuracy(ax: Axes, experiences: int) -> None:
    ax.margins(0.12)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    slope = experiences / (experiences - 1)
    low, high = left - top / slope, right - bottom / slope
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step <= 8)
    for accuracy in np.arange(np.ceil(low / step) * step, high, step):
        ends = np.array([left, right])
        ax.plot(ends, (ends - accuracy) * slope, color=FAINT, lw=0.8, zorder=0)
        y = (right - accuracy) * slope
        if bottom < y < top:
            ax.annotate(
                f"ACC {accuracy:.0f} %", (right, y), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.grid(False)


def strips(
    ax: Axes, values: Mapping[str, Floats], looks: Mapping[str, Look], names: Mapping[str, str], xlabel: str
) -> None:
    """One row an experiment: every seed a point, the mean with its 95 % interval below them."""
    for row, (experiment, seeds) in enumerate(values.items()):
        look = looks[experiment]
        mean, _, half = Curve(np.zeros(1), seeds[:, None]).band
        ax.scatter(seeds, np.full(len(seeds), row - 0.15), s=14, color=look.colour, alpha=0.6, linewidth=0)
        ax.errorbar(mean, [row + 0.15], xerr=half, fmt=look.marker, color=look.colour, capsize=3, ms=5)
    ax.set_yticks(range(len(values)), [literal(names[experiment]) for experiment in values])
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.set_xlabel(xlabel)


def tasks(ax: Axes, R: Floats) -> None:
    """Accuracy on each experience against the experiences learned, ``R`` of shape ``(n, T, T)`` in percent.

    One line an experience, from light to dark in the order of the stream, with each seed or a 95 % band.
    """
    T = R.shape[-1]
    colours = mpl.colormaps["viridis_r"](np.linspace(0.1, 1, T))
    x = np.arange(1, T + 1)
    for j in range(T):
        mean, _, half = band(R[:, :, j])
        ax.plot(x, mean, color=colours[j], marker="o", ms=2.5, lw=1.2)
        if len(R) >= SEEDS_FOR_A_BAND:
            low, high = np.clip([mean - half, mean + half], 0, 100)
            ax.fill_between(x, low, high, color=colours[j], alpha=0.12, linewidth=0)
        elif len(R) > 1:
            ax.plot(x, R[:, :, j].T, color=colours[j], lw=0.5, alpha=0.5)
        if T <= 10 and np.isfinite(mean[j]):
            ax.annotate(f"{j + 1}", (x[j], mean[j]), (4, 1), textcoords="offset points", fontsize=7)
    ax.set_xlabel("experiences learned")
    ax.set_ylabel("accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def by_epoch(ax: Axes, values: Floats, epochs: int) -> None:
    """A quantity of the layers, ``(layers, moments)``, over training; a line between experiences of ``epochs`` each."""
    positive = values[np.isfinite(values) & (values > 0)]
    image = ax.pcolormesh(values, cmap=SEQUENTIAL, norm=LogNorm(positive.min(), positive.max()))
    for end in range(epochs, values.shape[1], epochs):
        ax.axvline(end, color=GROUND, lw=0.8)
    ax.set_yticks(np.arange(len(values)) + 0.5, [str(layer) for layer in range(len(values))])
    ax.set(xlabel="epochs, over all experiences", ylabel="layer")
    ax.grid(False)
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    decades = positive.max() / positive.min() >= 10
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades else range(1, 10)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.outline.set_visible(False)
    bar.ax.grid(False)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")  # a picture inside the SVG is what the page may not load


def matrix(
    ax: Axes,
    R: Floats,
    cmap: str = SEQUENTIAL,
    limits: tuple[float, float] = (0, 100),
    labels: tuple[str, str] = ("tested on experience", "after training on"),
) -> None:
    """A (T, T) matrix in percent, rows top down; numbers in the cells while they fit. ``labels``: of x and y."""
    image = ax.pcolormesh(R, cmap=cmap, vmin=limits[0], vmax=limits[1], edgecolors=GROUND, linewidth=0.5)
    T = len(R)
    if T <= 10:
        for t, j in zip(*np.nonzero(np.isfinite(R)), strict=True):
            colour = contrasting(image.to_rgba(R[t, j]))
            ax.text(j + 0.5, t + 0.5, f"{R[t, j]:.0f}", ha="center", va="center", color=colour, fontsize=8)
    ticks = np.arange(0, T, max(1, T // 10))
    ax.set_xticks(ticks + 0.5, [str(tick + 1) for tick in ticks])
    ax.set_yticks(ticks + 0.5, [str(tick + 1) for tick in ticks])
    ax.set(xlabel=labels[0], ylabel=labels[1], aspect="equal", ylim=(T, 0))
    ax.grid(False)
    ax.tick_params(length=0)


def contrasting(rgba: Iterable[float]) -> str:
    """Black or white, whichever reads better on a colour (relative luminance of WCAG 2)."""
    channels = np.array(list(rgba)[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "#000000" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "#ffffff"


def legend_below(ax: Axes) -> None:
    """A legend under the axes, where it hides nothing."""
    handles, names = ax.get_legend_handles_labels()
    columns = 2 if max((len(name) for name in names), default=0) < 30 else 1
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def literal(text: str) -> str:
    """A name that matplotlib shows as it is: no dollar sign starts mathematics, no underscore hides a legend's line.

    The end of a very long one is left out, for it would leave the figure no room; the tables have the whole.
    """
    short = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return ("\u00a0" if short.startswith("_") else "") + short.replace("$", r"\$")


def slug(text: str) -> str:
    """A file name, and an id, for any text."""
    return re.sub(r"[^A-Za-z0-9._=+]+", "-", text).strip("-.") or "figure"


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = FORMATS) -> str:
    """Write ``name`` in each format, SVG first, without a date, and return the SVG."""
    with warnings.catch_warnings():
        # Text stays text in an SVG: a letter that matplotlib's own font lacks is the reader's font's business.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _lay_out(figure)
        for kind in formats:
            figure.savefig(folder / f"{name}.{kind}", dpi=PNG_DPI, metadata=METADATA[kind])
    return (folder / f"{name}.svg").read_text(encoding="utf-8")


def _lay_out(figure: Figure) -> None:
    """Find the places of everything for all formats, with the widths that letters have in an SVG.

    ``savefig`` would draw the whole figure once more to find them.
    """
    FigureCanvasSVG(figure)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" is an engine that does nothing, before which savefig draws as well
