"""A report held against the runs: every number computed again, and what differs said.

The report says in its data which folders it was made from and how. From the same folders (or others that are given) all
files with numbers are made again, without drawing, and compared number by number: the page's visible text and tooltips,
the data behind its maps, and the CSV, Markdown and LaTeX files that lie beside it.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from typing import Any

from acn_cl import __version__
from acn_cl.errors import UserError
from acn_cl.reports.report import read_content
from acn_cl.runs.load import Runs

LARGEST = 200_000_000  # bytes of a page
SILENT = ("script", "style", "svg", "code", "select", "head")
"""What holds no number of a run: paths and commands among it. Drawings show the numbers that stand under them."""
MOST_SHOWN = 200
DEEPEST = 1_000
"""Open tags at once; each closing tag looks through them."""
VOID = ("meta", "br", "line", "link", "input", "hr", "img")


@dataclass(frozen=True)
class Difference:
    """One thing that the report says and the runs do not, or the other way round."""

    where: str
    reported: str
    recomputed: str

    def __str__(self) -> str:
        return (
            f"{self.where}: the report has {self.reported or 'nothing'}, the runs give {self.recomputed or 'nothing'}"
        )


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes:
        checked: values compared, by file.
        differences: in the order of files.
        missing: files that a report has and that do not lie beside this one.
    """

    checked: Mapping[str, int]
    differences: Sequence[Difference]
    missing: Sequence[str]


def verify(report: Path, folders: Sequence[Path] = ()) -> Verification:
    """Compute every number of ``report`` (``report.html``, or the folder that it lies in) again.

    Args:
        report: the page.
        folders: of the runs; by default those that the report names.

    Raises:
        UserError: it is no report of ours, or there are no runs.
    """
    path = report / "report.html" if report.is_dir() else report
    text = _read(path)
    page = _Page(text)
    made = _made(path, page.data)
    where = list(folders) or [Path(f) for f in made["folders"]]
    content = read_content(where, Path(made["out"]), made["equivalence"])
    checked, differences, missing = {}, _runs_changed(made, content.runs), []
    for name, wanted in content.texts_undrawn().items():
        if name == "report.html":
            found = list(_pages(page, _Page(wanted)))
            checked[name] = len(page.values)
        elif not (path.parent / name).exists():
            missing.append(name)
            continue
        else:
            theirs = (path.parent / name).read_text(encoding="utf-8", errors="replace")
            compare = _tables if name.endswith(".csv") else _lines
            found = list(compare(name, theirs, wanted))
            checked[name] = sum(map(len, _rows(wanted)[1:])) if name.endswith(".csv") else wanted.count("\n")
        differences += found
    return Verification(checked, differences, missing)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: too large for a report")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"{path}: cannot be read as a report ({reason})") from None


def _made(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """How the report was made, as its data say, checked."""
    made = data.get("made")
    if not isinstance(made, dict) or not _is_made(made):
        raise UserError(f"{path}: not a report that says how it was made; make it again with acn-cl report")
    return made


def _is_made(made: Mapping[str, Any]) -> bool:
    kinds = {"folders": list, "out": str, "equivalence": int | float, "runs": list}
    if not all(isinstance(made.get(key), kind) for key, kind in kinds.items()):
        return False
    return all(isinstance(f, str) for f in made["folders"]) and all(isinstance(run, dict) for run in made["runs"])


def _runs_changed(made: Mapping[str, Any], runs: Runs) -> list[Difference]:
    """Runs that came, went, or whose data are others now."""
    program = [Difference("the program", f"version {made.get('version')}", f"version {__version__}")]
    now = {f"{run.experiment} seed {run.seed}": run.checksum for run in runs.runs}
    then = {f"{one.get('experiment')} seed {one.get('seed')}": str(one.get("data")) for one in made["runs"]}
    return (program if made.get("version") != __version__ else []) + [
        Difference(f"data of {name}", then.get(name, "")[:12], now.get(name, "")[:12])
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


class _Page(HTMLParser):
    """The visible values of a page in order, each with its place, and the embedded data."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.values: list[tuple[str, str]] = []
        self.data: dict[str, Any] = {}
        self._open: list[tuple[str, bool]] = []
        self._section, self._row, self._in_row_head = "", "", False
        self._data: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        hidden = tag in SILENT or "file" in (known.get("class") or "").split()
        if tag == "section":
            self._section, self._row = str(known.get("id") or ""), ""
        if tag == "tr" or tag == "li":
            self._row = ""
        if tag == "th":
            self._in_row_head = known.get("scope") == "row"
        if tag == "script" and known.get("id") == "data":
            self._data = []
        silent = hidden or self._is_silent
        if not silent:
            self.values += [(self._place, v) for k in ("title", "data-value") if (v := known.get(k)) is not None]
        if len(self._open) > DEEPEST:
            raise UserError(f"a page with tags nested more than {DEEPEST:,} deep is no report")
        if tag not in VOID:
            self._open.append((tag, silent))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """``<line/>``: only in drawings."""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._data is not None:
            self.data, self._data = _object("".join(self._data)), None
        if tag in (name for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._data is not None:
            self._data.append(data)
        elif not self._is_silent and (text := " ".join(data.split())):
            if self._in_row_head:
                self._row = text
                self._in_row_head = False
            self.values.append((self._place, text))

    @property
    def _is_silent(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    @property
    def _place(self) -> str:
        return " · ".join(filter(None, ["report.html", self._section, self._row]))


def _object(text: str) -> dict[str, Any]:
    """JSON that should be an object; an empty one where it is not."""
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _pages(reported: _Page, recomputed: _Page) -> Iterator[Difference]:
    first, second = _by_section(reported), _by_section(recomputed)
    for section in first | second:
        yield from _values(f"report.html · {section}", first.get(section, []), second.get(section, []))
    old, new = (page.data.get("matrices") or {} for page in (reported, recomputed))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield Difference(f"report.html · matrices · {name}", "another matrix", "this one")


def _by_section(page: _Page) -> dict[str, list[tuple[str, str]]]:
    """The page's values, each with its place, by the section in that place."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for place, value in page.values:
        sections.setdefault("".join(place.split(" · ")[1:2]), []).append((place, value))
    return sections


def _values(
    where: str, reported: Sequence[tuple[str, str]], recomputed: Sequence[tuple[str, str]]
) -> Iterator[Difference]:
    """One section's values: one by one where there are as many, else the first that differs."""
    if len(reported) == len(recomputed):
        for (place, old), (_, new) in zip(reported, recomputed, strict=True):
            if old != new:
                yield Difference(place, _short(old), _short(new))
        return
    pairs = zip_longest(reported, recomputed, fillvalue=("", ""))
    (place, old), (_, new) = next(pair for pair in pairs if pair[0][1] != pair[1][1])
    yield Difference(where, f"{len(reported)} values", f"{len(recomputed)}")
    yield Difference(f"{place or where}, the first that differs", _short(old), _short(new))


def _tables(name: str, reported: str, recomputed: str) -> Iterator[Difference]:
    """Two CSV files cell by cell."""
    old, new = _rows(reported), _rows(recomputed)
    if old[:1] != new[:1]:
        yield Difference(f"{name}, the columns", _short(",".join(old[0] if old else [])), _short(",".join(new[0])))
        return
    head = new[0]
    none: list[str] = []
    for line, (a, b) in enumerate(zip_longest(old[1:], new[1:], fillvalue=none), start=2):
        row = " ".join(filter(None, (b or a)[: min(3, len(head))]))
        for column, x, y in zip_longest(head, a, b, fillvalue=""):
            if x != y:
                yield Difference(f"{name}:{line} · {row} · {column}", _short(x), _short(y))


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _lines(name: str, reported: str, recomputed: str) -> Iterator[Difference]:
    for line, (a, b) in enumerate(zip_longest(reported.splitlines(), recomputed.splitlines(), fillvalue=""), start=1):
        if a != b:
            yield Difference(f"{name}:{line}", _short(a), _short(b))


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
