"""Plots drawn: the files under ``figures/`` and the same pictures ready for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from markupsafe import Markup

from acn_cl.reports import figures
from acn_cl.reports.plots import Plot
from acn_cl.reports.svg import inline

PAPER_FIGURES = 80
"""Figures up to which each is also written as PDF and PNG, which takes three times as long as the SVG alone."""


@dataclass(frozen=True)
class Drawing:
    """A plot, its files' name under ``figures/`` and their endings, and its markup for the page."""

    plot: Plot
    name: str
    formats: Sequence[str]
    svg: Markup


def draw(plots: Sequence[Plot], folder: Path) -> list[Drawing]:
    """Draw all plots into ``folder``, which is made; two plots of one name get numbers.

    Always as SVG; as PDF and PNG too while there are not too many (:data:`PAPER_FIGURES`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    formats = _formats(plots)
    with mpl.rc_context(figures.STYLE):
        return [_draw(plot, folder, _free(plot.file, taken), n, formats[n]) for n, plot in enumerate(plots)]


def undrawn(plots: Sequence[Plot]) -> list[Drawing]:
    """The same without the pictures, for a page of which only the numbers are wanted."""
    taken: set[str] = set()
    formats = _formats(plots)
    return [Drawing(plot, _free(plot.file, taken), formats[n], Markup("")) for n, plot in enumerate(plots)]


def _formats(plots: Sequence[Plot]) -> list[Sequence[str]]:
    few = sum(plot.paper for plot in plots) <= PAPER_FIGURES
    return [figures.FORMATS if few and plot.paper else figures.FORMATS[:1] for plot in plots]


def _draw(plot: Plot, folder: Path, name: str, number: int, formats: Sequence[str]) -> Drawing:
    figure, ax = figures.new()
    plot.draw(ax)
    svg = figures.save(figure, folder, name, formats)
    return Drawing(plot, name, formats, Markup(inline(svg, f"figure{number}", f"{plot.title}: {plot.caption}")))


def _free(name: str, taken: set[str]) -> str:
    """``name``, or ``name-2``, ``name-3`` …; case does not count, as on some file systems."""
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.lower())
    return free
