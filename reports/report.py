"""The report, from run folders to files."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from acn_cl.errors import UserError
from acn_cl.reports import latex, markdown, page
from acn_cl.reports.comparisons import compare_all
from acn_cl.reports.drawings import draw
from acn_cl.reports.noise import frame as noise_frame
from acn_cl.reports.noise import under_noise
from acn_cl.reports.plots import plots
from acn_cl.reports.results import Results
from acn_cl.runs.load import load_runs

OWN_FILES = "files.txt"
"""Lists what a report wrote, so that the next one knows what it may remove."""


def make_report(folders: Sequence[Path], out: Path) -> Path:
    """Write ``report.html``, ``results.{csv,md}``, ``seeds.csv``, ``figures/*`` and ``tables/*.tex``.

    Args:
        folders: of runs, merged.
        out: made if need be; what an earlier report wrote there is replaced, other files stay.

    Returns:
        The path of ``report.html``: one file that needs none of the others, nor a network.

    Raises:
        UserError: there are no runs, they contradict each other, or ``out`` cannot be written.
    """
    runs = load_runs(*folders)
    results = Results(runs)
    comparisons, noise = compare_all(runs, results), under_noise(runs)
    try:
        _clear(out)
        drawings = draw(list(plots(runs, results)), out / "figures")
        command = shlex.join(["acn-cl", "report", *map(str, folders), "--out", str(out)])
        texts = {
            "results.csv": results.frame().to_csv(index=False),
            "seeds.csv": results.seeds_frame().to_csv(index=False),
            "results.md": markdown.render(runs, results),
            **({"noise.csv": noise_frame(noise).to_csv(index=False)} if noise else {}),
            **{f"tables/{name}.tex": text for name, text in latex.tables(runs, results, comparisons, noise)},
            "report.html": page.render(runs, results, comparisons, noise, drawings, command),
        }
        _write(out, texts, [f"figures/{drawing.name}.{kind}" for drawing in drawings for kind in drawing.formats])
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written ({error.strerror})") from None
    return out / "report.html"


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
