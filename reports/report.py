"""The report, from run folders to files."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acn_cl import __version__
from acn_cl.errors import UserError
from acn_cl.reports import comparisons, confusion, latex, markdown, noise, page, published
from acn_cl.reports.drawings import Drawing, draw, undrawn
from acn_cl.reports.plots import plots
from acn_cl.reports.results import Results
from acn_cl.runs.load import Runs, load_runs

OWN_FILES = "files.txt"
"""Lists what a report wrote, so that the next one knows what it may remove."""


@dataclass(frozen=True)
class Content:
    """All numbers of a report.

    Attributes:
        runs: from which they are.
        results: every measure of every experiment.
        comparisons: declared ones and pairs.
        noise: accuracy under corruptions.
        published: ours beside published ones.
        made: how the report was made; with it and the runs it can be made again.
    """

    runs: Runs
    results: Results
    comparisons: Sequence[comparisons.Comparison]
    noise: noise.Noise
    published: Sequence[published.Beside]
    made: page.Made

    def texts_undrawn(self) -> dict[str, str]:
        """The same files as :meth:`texts` gives, the page without its drawings."""
        return self.texts(undrawn(list(plots(self.runs, self.results))))

    def texts(self, drawings: Sequence[Drawing]) -> dict[str, str]:
        """Every file with numbers, by name."""
        frames = {
            "results.csv": self.results.frame(),
            "seeds.csv": self.results.seeds_frame(),
            "comparisons.csv": comparisons.frame(self.comparisons),
            "noise.csv": noise.frame(self.noise, self.results),
            "confusion.csv": confusion.frame(confusion.confusions(self.runs)),
            "published.csv": published.frame(self.published),
        }
        tables = latex.tables(self.runs, self.results, self.comparisons, self.noise, self.published)
        return {
            **{name: frame.to_csv(index=False) for name, frame in frames.items() if len(frame)},
            "results.md": markdown.render(self.runs, self.results),
            **{f"tables/{name}.tex": text for name, text in tables},
            "report.html": page.render(
                self.runs, self.results, self.comparisons, self.noise, self.published, drawings, self.made
            ),
        }


def make_report(folders: Sequence[Path], out: Path, equivalence: float = 0.0) -> Path:
    """Write ``report.html``, ``results.{csv,md}``, ``seeds.csv``, ``figures/*``, ``tables/*.tex`` and more.

    Args:
        folders: of runs, merged; a CSV file among them holds accuracy matrices of somebody else.
        out: made if need be; what an earlier report wrote there is replaced, other files stay.
        equivalence: margin in points; above 0, comparisons also say whether the two differ by less than that.

    Returns:
        The path of ``report.html``: one file that needs none of the others, nor a network.

    Raises:
        UserError: there are no runs, they contradict each other, or ``out`` cannot be written.
    """
    content = read_content(folders, out, equivalence)
    try:
        _clear(out)
        drawings = draw(list(plots(content.runs, content.results)), out / "figures")
        figures = [f"figures/{drawing.name}.{kind}" for drawing in drawings for kind in drawing.formats]
        _write(out, content.texts(drawings), figures)
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written ({error.strerror})") from None
    return out / "report.html"


def read_content(folders: Sequence[Path], out: Path, equivalence: float) -> Content:
    """Read the runs and compute all numbers; nothing is drawn or written.

    Raises:
        UserError: there are no runs, they contradict each other, or the margin is negative.
    """
    if not 0 <= equivalence < 100:
        raise UserError(f"a margin of equivalence is a number of points from 0 to 100, not {equivalence:g}")
    runs = load_runs(*folders)
    results = Results(runs)
    options = ["--equivalence", f"{equivalence:g}"] if equivalence else []
    command = shlex.join(["acn-cl", "report", *map(str, folders), "--out", str(out), *options])
    made = page.Made(command, tuple(map(str, folders)), str(out), equivalence, __version__)
    return Content(
        runs,
        results,
        comparisons.compare_all(runs, results, equivalence),
        noise.under_noise(runs),
        published.beside_published(runs, results),
        made,
    )


def _clear(out: Path) -> None:
    """Remove the files that an earlier report lists as its own."""
    out.mkdir(parents=True, exist_ok=True)
    own = out / OWN_FILES
    for name in own.read_text(encoding="utf-8").splitlines() if own.exists() else []:
        path = out / name
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)


def _write(out: Path, texts: Mapping[str, str], others: Sequence[str]) -> None:
    (out / "tables").mkdir(exist_ok=True)
    listed = {OWN_FILES: "".join(f"{name}\n" for name in sorted([*texts, *others]))}
    for name, text in {**listed, **texts}.items():
        (out / name).write_text(text, encoding="utf-8")
