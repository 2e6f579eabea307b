"""Progress of many runs at a time, read from their folders, wherever they are trained."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from acn_cl.bookkeeping import Outcome, Quiet
from acn_cl.display import in_time
from acn_cl.runs.folder import STATUS

LINE_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@dataclass(frozen=True)
class AtWork:
    """Runs that were sent to a worker together; the first one's folder speaks for all."""

    folders: tuple[Path, ...]

    @property
    def name(self) -> str:
        """For people."""
        first = self.folders[0]
        more = f" and {len(self.folders) - 1} more" if len(self.folders) > 1 else ""
        return f"{first.parent.name} {first.name}{more}"


class Overview(Quiet):
    """What is done, failed and at work, and how long the rest will take. Use as a context manager around the runs.

    Args:
        console: where to draw; plain lines where it is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at_work: list[AtWork] = []
        self._counts = {"done": 0, "skipped": 0, "failed": 0}
        self._total = 0
        self._began: tuple[float, float] | None = None  # when the first task was sent, and how far all runs were then
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=2)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            threading.Thread(target=self._say_now_and_then, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._console.is_terminal:
            self._live.stop()

    # What it is told.

    def sent(self, folders: Sequence[Path], total: int) -> None:
        self._begin_anew_after_the_last()
        self._total = total
        self._at_work = [*self._at_work, AtWork(tuple(folders))]
        if self._began is None:
            self._began = time.monotonic(), self._behind()

    def run_ended(self, outcome: Outcome) -> None:
        self._begin_anew_after_the_last()
        self._counts[outcome.state] += 1
        self._at_work = [some for some in self._at_work if outcome.path not in some.folders]
        words = {"done": "done", "skipped": "done before", "failed": f"failed: {outcome.error}"}
        self._say(f"{outcome.experiment} seed {outcome.seed}: {words[outcome.state]}")

    def note(self, text: str) -> None:
        self._say(text)

    def _begin_anew_after_the_last(self) -> None:
        """The runs that a search's trials have chosen are another set."""
        if self._total and sum(self._counts.values()) >= self._total:
            self._counts, self._total, self._began = dict.fromkeys(self._counts, 0), 0, None

    # What it shows.

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _say_now_and_then(self) -> None:
        while not self._over.wait(LINE_EVERY):
            self._say(self._summary())

    def _behind(self) -> float:
        """How many runs' worth of training is done."""
        return sum(self._counts.values()) + sum(fraction(some.folders[0]) * len(some.folders) for some in self._at_work)

    def _summary(self) -> str:
        ended = sum(self._counts.values())
        line = f"{ended} of {self._total or '?'} runs ended"
        line += f", {failed} failed" if (failed := self._counts["failed"]) else ""
        line += f", {sum(len(some.folders) for some in self._at_work)} at work"
        if self._began is not None:
            spent, made = time.monotonic() - self._began[0], self._behind() - self._began[1]
            line += f", {in_time(spent)}"
            line += f", about {in_time(spent / made * (self._total - self._behind()))} left" if made > 0 else ""
        return line

    def _drawn(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        room = max(1, self._console.height - 5)
        for some in self._at_work[:room]:
            rows.add_row(escape(some.name), where(some.folders[0]))
        if (hidden := len(self._at_work) - room) > 0:
            rows.add_row(f"and {hidden} more", "")
        bar = Table.grid(expand=True)  # by itself a bar does not end its line
        bar.add_row(ProgressBar(total=max(self._total, 1), completed=self._behind()))
        return Group(rows, bar, self._summary())


def where(folder: Path) -> str:
    """``experience 2/5 epoch 3/10`` of the run in a folder; ``waiting`` when it was never begun."""
    progress = _progress(folder)
    if not progress:
        return "waiting"
    learning = min(progress["experience"] + 1, progress["experiences"])
    return f"experience {learning}/{progress['experiences']} epoch {progress['epoch']}/{progress['epochs']}"


def fraction(folder: Path) -> float:
    """How much of the run in a folder is trained, 0..1."""
    progress = _progress(folder)
    if not progress:
        return 0.0
    return (progress["experience"] + progress["epoch"] / progress["epochs"]) / progress["experiences"]


def _progress(folder: Path) -> dict[str, int]:
    """Read without a look at the lock, which would be in the way of a worker that is about to take it."""
    try:
        progress = json.loads((folder / STATUS).read_text(encoding="utf-8"))["progress"]
        return {key: int(progress[key]) for key in ("experience", "experiences", "epoch", "epochs")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
