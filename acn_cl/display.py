"""Progress on a terminal, or as plain lines where there is none."""

import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from acn_cl.bookkeeping import Outcome
from acn_cl.training.session import Results


class TerminalDisplay:
    """One bar for all epochs of all runs, with what is being learned and the time left.

    Use as a context manager around :func:`acn_cl.runner.run`.

    Args:
        console: where to draw.
        epochs: epochs of all runs together that are to be trained.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._epochs = epochs
        self._task = self._progress.add_task("checking", total=epochs)
        self._size = (1, 1)

    def __enter__(self) -> "TerminalDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sent(self, folders: Sequence[Path], total: int) -> None:
        pass

    def run_started(self, number: int, total: int, name: str, experiences: int, epochs: int) -> None:
        self._run = f"[bold]{name}[/] ({number}/{total})"
        self._size = (experiences, epochs)
        # Runs that were done before, or go on from a checkpoint, are behind us all the same.
        self._progress.update(self._task, completed=self._epochs * (number - 1) // total)
        self._started = time.monotonic()
        self._describe(0, 0, None)

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        self._progress.advance(self._task)
        self._describe(experience, epoch + 1, loss)

    def experience_done(self, experience: int, results: Results) -> None:
        pass

    def run_ended(self, outcome: Outcome) -> None:
        if outcome.state == "skipped":
            self._console.print(f"[dim]{outcome.experiment} seed {outcome.seed}: done before[/]")
        elif outcome.state == "failed":
            self._console.print(
                f"[red]{outcome.experiment} seed {outcome.seed}: failed:[/] {outcome.error}", markup=True
            )
        else:
            seconds = time.monotonic() - self._started
            self._console.print(f"{outcome.experiment} seed {outcome.seed}: done in {seconds:.0f} s")

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, style="yellow")

    def _describe(self, experience: int, epoch: int, loss: float | None) -> None:
        experiences, epochs = self._size
        text = f"{self._run} experience {experience + 1}/{experiences} epoch {epoch}/{epochs}"
        self._progress.update(self._task, description=text + (f" loss {loss:.2f}" if loss is not None else ""))


class PlainDisplay:
    """One line an experience: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sent(self, folders: Sequence[Path], total: int) -> None:
        pass

    def run_started(self, number: int, total: int, name: str, experiences: int, epochs: int) -> None:
        self._run, self._experiences = f"[{number}/{total}] {name}", experiences
        self._started = time.monotonic()
        self._say(f"{self._run}: {experiences} experiences of {epochs} epochs")

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        self._loss = loss

    def experience_done(self, experience: int, results: Results) -> None:
        seconds = time.monotonic() - self._started
        left = seconds / (experience + 1) * (self._experiences - experience - 1)
        self._say(
            f"{self._run}: experience {experience + 1}/{self._experiences}, loss {self._loss:.3f}, {seconds:.0f} s, "
            f"about {left:.0f} s left"
        )

    def run_ended(self, outcome: Outcome) -> None:
        words = {"done": "done", "skipped": "done before", "failed": f"failed: {outcome.error}"}
        self._say(f"{outcome.experiment} seed {outcome.seed}: {words[outcome.state]}")

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def size_of(path: Path) -> str:
    """A folder's or file's size in words."""
    total = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    return in_bytes(total)


def in_bytes(count: float) -> str:
    """``1536`` as ``1.5 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def in_time(seconds: float) -> str:
    """``90`` as ``1.5 min``, ``5000`` as ``1.4 h``, two figures."""
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < size:
            return f"{seconds:.1f} {unit}" if seconds < 10 else f"{seconds:.0f} {unit}"
        seconds /= size
    return f"{seconds:.1f} d"


def in_ranges(numbers: Sequence[int]) -> str:
    """``(0, 1, 2, 5)`` as ``0-2,5``."""
    parts: list[str] = []
    for _, run in groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(parts)
