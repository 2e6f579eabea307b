"""What experiments are called, and how they look, in every table and figure alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from acn_cl.runs.load import Run, Runs, natural

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe & Ito's colour-blind-safe palette (jfly.uni-koeln.de/color) without black and yellow, which drown in one of
the two backgrounds."""
NEUTRAL = "#1b1f24"
"""Ink of figures and, with a dash, the lines of imported matrices: no colour of ours is taken for theirs."""
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
T = TypeVar("T")
Fill = Literal["full", "none", "left", "bottom"]
FILLS: tuple[Fill, ...] = get_args(Fill)
LINES_A_PANEL = 8


@dataclass(frozen=True)
class Look:
    """Colour, line style, marker and how far the marker is filled, of one experiment."""

    colour: str
    dash: str
    marker: str
    fill: Fill


def axes(run: Run) -> Mapping[str, Any]:
    """The settings that make this experiment differ from its siblings, by dotted name; values as text."""
    return {key: _text(key, value) for key, value in (run.spec.get("axes") or {}).items()}


def labels(runs: Runs) -> dict[str, str]:
    """A short name for each experiment: its axes' values (``ac_mixer · depth 5``), or its id if they are not unique."""
    short = {run.experiment: " · ".join(axes(run).values()) or run.experiment * run.imported for run in runs.runs}
    distinct = all(short.values()) and len(set(short.values())) == len(short)
    return short if distinct else {experiment: experiment for experiment in short}


def without(run: Run, setting: str) -> str:
    """The experiment's short name less one setting: ``ac_mixer · si`` of ``ac_mixer · si lambda 2``."""
    shown = []
    for key, value in (run.spec.get("axes") or {}).items():
        rest = value
        if isinstance(value, Mapping):
            rest = {name: v for name, v in value.items() if f"{key}.{name}" != setting}
        if key != setting:
            shown.append(_text(key, rest))
    return " · ".join(shown) or run.experiment


def pair(a: Run, b: Run) -> tuple[str, str, str]:
    """What two experiments share and the names of both within that: ``("si", "ac_mixer", "res_mixer")``.

    Without axes in common, nothing is shared and the names are the ids.
    """
    first, second = axes(a), axes(b)
    own = [key for key in first if first[key] != second.get(key)]
    if first.keys() != second.keys() or not own:
        return "", a.experiment, b.experiment
    shared = " · ".join(value for key, value in first.items() if key not in own)
    return shared, " · ".join(first[key] for key in own), " · ".join(second[key] for key in own)


def looks(runs: Runs) -> dict[str, Look]:
    """Colour and marker by the value of the first axis, dash and fill by the second's.

    Without axes, or where they do not tell the lines of a panel apart, each line is :func:`numbered`.
    """
    first, second = _axis_values(runs, 0), _axis_values(runs, 1)
    by_name = representatives(runs)
    theirs = [name for name, run in by_name.items() if run.imported]
    found: dict[str, Look] = {name: _imported_look(index) for index, name in enumerate(theirs)}
    for panel in panels(runs).values():
        members = [name for name in panel if not by_name[name].imported]
        values = [list(axes(by_name[experiment]).values()) for experiment in members]
        places = [(first.index(v[0]) if v else 0, second.index(v[1]) if len(v) > 1 else 0) for v in values]
        shown = [_look(*place) for place in places]
        if not all(values) or len({(look.colour, look.dash) for look in shown}) < len(shown):
            shown = [numbered(len(found) - len(theirs) + i) for i in range(len(members))]
        found |= dict(zip(members, shown, strict=True))
    return found


def _imported_look(index: int) -> Look:
    return Look(NEUTRAL, DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)], "none")


def numbered(index: int) -> Look:
    """Its own colour while they last, then a dash as well."""
    return _look(index, index // len(COLOURS))


def _look(hue: int, dash: int) -> Look:
    return Look(
        COLOURS[hue % len(COLOURS)],
        DASHES[dash % len(DASHES)],
        MARKERS[hue % len(MARKERS)],
        FILLS[dash % len(FILLS)],
    )


def panels(runs: Runs) -> dict[str, list[str]]:
    """Experiments that share a figure, by its title: the same stream, the same third and later axes, at most eight.

    More than eight are divided by the second axis, so that the values of the first stay together.
    """
    by_name = representatives(runs)
    groups: dict[str, dict[str, list[str]]] = {}
    for experiment, run in by_name.items():
        values = list(axes(run).values())
        title = " · ".join([stream(run), *values[2:]])
        if not run.imported:
            groups.setdefault(title, {}).setdefault("".join(values[1:2]), []).append(experiment)
    found = {}
    for title, blocks in groups.items():
        parts = chunks(list(blocks.values()))
        for number, part in enumerate(parts, start=1):
            found[title if len(parts) == 1 else f"{title} ({number}/{len(parts)})"] = sorted(part, key=natural)
    _add_imported(found, by_name)
    return found


def _add_imported(found: dict[str, list[str]], by_name: Mapping[str, Run]) -> None:
    """Imported matrices stand in every panel of as many experiences, and by themselves where there is none."""
    for experiment, run in by_name.items():
        if run.imported:
            alike = [
                members
                for members in found.values()
                if not by_name[members[0]].imported and len(by_name[members[0]].by_depth) == len(run.by_depth)
            ]
            for members in alike or [found.setdefault(stream(run), [])]:
                members.append(experiment)


def chunks(blocks: Sequence[list[T]]) -> list[list[T]]:
    """Blocks in their order, as many together as a panel holds; one that is longer than a panel is cut."""
    found: list[list[T]] = [[]]
    for block in blocks:
        for start in range(0, len(block), LINES_A_PANEL):
            part = block[start : start + LINES_A_PANEL]
            if len(found[-1]) + len(part) > LINES_A_PANEL:
                found.append([])
            found[-1] += part
    return found


def stream(run: Run) -> str:
    """``split-cifar100, 20 experiences, task-incremental``."""
    if run.imported:
        return f"imported, {len(run.by_depth)} experiences"
    section = run.settings.get("stream", {})
    count = section.get("experiences")
    parts = [section.get("name", "stream"), f"{count} experiences" if count else "", run.scenario]
    return ", ".join(part for part in parts if part)


def representatives(runs: Runs) -> dict[str, Run]:
    """The first run of each experiment, sorted by experiment."""
    return {run.experiment: run for run in sorted(runs.runs, key=lambda run: (natural(run.experiment), -run.seed))}


def _axis_values(runs: Runs, position: int) -> list[str]:
    values = [list(axes(run).values()) for run in representatives(runs).values()]
    return sorted({v[position] for v in values if len(v) > position}, key=natural)


def _text(key: str, value: Any) -> str:
    """``si · lambda 2`` for a whole section, ``ac_mixer`` for a name, ``depth 5`` for anything else."""
    if isinstance(value, Mapping):
        rest = [f"{name} {_plain(v)}" for name, v in value.items() if name != "name"]
        return " ".join([str(value.get("name", "")), *rest]).strip()
    return value if isinstance(value, str) else f"{key.rsplit('.', 1)[-1]} {_plain(value)}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
