"""The command line: parse, call, print. The composition root, and the only module that may import everything.

What is slow to import (torch, Avalanche, pandas) is imported inside the command that needs it, so that ``--help`` and
a mistake in a spec answer at once.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from acn_cl import __version__
from acn_cl.errors import Ended, UserError, suggest
from acn_cl.executors.table import build_executor
from acn_cl.recipe import Recipe, load_recipe, recipe_files
from acn_cl.share import Share, parse_share
from acn_cl.specfile import read_spec_file
from acn_cl.tables import Entry, table
from acn_cl.training.interrupt import Interrupted, Terminated, heed, leave_on_signals, stop_on_signals
from acn_cl.training.launch import launch

DONE, OUR_FAULT, WRONG_INPUT, SOME_FAILED = 0, 1, 2, 3
LISTS = ("backbones", "blocks", "wirings", "strategies", "streams", "recipes", "executors")

app = typer.Typer(
    name="acn-cl",
    help="Continual learning, seen through depth: run streams, and report what was forgotten.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Which data sets are here, where, whole or damaged.", no_args_is_help=True)
app.add_typer(data_app, name="data")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)
debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"acn-cl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    show_traceback: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    global debug
    debug = show_traceback


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe (acn-cl list recipes) or a YAML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds instead of the recipe's: 0-4 or 0,2.")] = None,
    runs: Annotated[Path | None, typer.Option("--out", help="Folder of the runs. [default: runs/<recipe>]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, avalanche or stacked.")] = None,
    executor: Annotated[str, typer.Option(help="Who trains: local, processes or ray.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Tasks at a time. [default: as many as fit]")] = None,
    address: Annotated[str | None, typer.Option(help="The Ray cluster: auto or host:port.")] = None,
    only: Annotated[str | None, typer.Option(metavar="I/N", help="Only this part of all runs, such as 2/8.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and run nothing.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Make the report at the end, in OUT/report.")] = False,
) -> None:
    """Run a recipe. What is done already is skipped; what was cut off goes on from its last checkpoint."""
    chosen = [f"{key}={value}" for key, value in _given(device=device, precision=precision, engine=engine)]
    loaded = load_recipe(recipe, [*(set_ or []), *chosen], seeds)
    folder = runs if runs is not None else Path("runs") / loaded.name
    share = parse_share(only) if only is not None else None
    with leave_on_signals():
        trainer = build_executor(executor, workers=workers, address=address)
    if dry_run:
        if not launch().rank:
            _print_plan(loaded, folder)
        return
    code = _run(loaded, folder, trainer, share, one_by_one=executor == "local")
    if launch().rank:  # the first of several processes says and writes what there is
        raise typer.Exit(code)
    if report:
        _report([folder], folder / "report")
    else:
        out.print(f"report: acn-cl report {folder}", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _given(**options: str | None) -> list[tuple[str, str]]:
    return [(key, value) for key, value in options.items() if value is not None]


def _run(recipe: Recipe, folder: Path, executor: Any, only: Share | None, one_by_one: bool) -> int:
    first = launch().rank == 0
    for name in _foreign_names(recipe) if first else ():
        err.print(f"importing {name}, which the spec names", markup=False)
    with leave_on_signals():
        from acn_cl.runner import failed
        from acn_cl.runner import run as run_recipe

    with _display(recipe, one_by_one) as display, stop_on_signals() as stop:
        outcomes = run_recipe(recipe, folder, display if first else None, stop, executor, only)
    bad = failed(outcomes)
    if first:
        _print_results(recipe, outcomes)
    if bad and first:
        err.print(f"{len(bad)} of {len(outcomes)} runs failed; acn-cl status {folder} says why", markup=False)
    return SOME_FAILED if bad else DONE


def _display(recipe: Recipe, one_by_one: bool) -> Any:
    from acn_cl.display import PlainDisplay, TerminalDisplay
    from acn_cl.overview import Overview

    if not one_by_one:
        return Overview(out)
    first = launch().rank == 0
    return TerminalDisplay(out, _epochs(recipe)) if out.is_terminal and first else PlainDisplay(out)


def _epochs(recipe: Recipe) -> int:
    """Epochs of all runs together; a stream of somebody's own that does not say its length counts as one experience."""
    specs = [planned.experiment for planned in recipe.planned]
    return sum(len(e.seeds) * e.epochs * (e.stream.stop_after or e.stream.experiences or 1) for e in specs)


def _foreign_names(recipe: Recipe) -> list[str]:
    """Dotted names of a spec: code of somebody's own, imported by ``run`` only."""
    names = set()
    for planned in recipe.planned:
        sections = (planned.experiment.stream, planned.experiment.backbone, planned.experiment.strategy)
        values = [section.name for section in sections]
        values += [(sections[1].model_extra or {}).get(key) for key in ("block", "wiring")]
        names |= {value for value in values if isinstance(value, str) and ":" in value}
    return sorted(names)


def _print_plan(recipe: Recipe, folder: Path) -> None:
    from acn_cl.display import in_bytes, in_ranges, in_time
    from acn_cl.runner import check_engine
    from acn_cl.training.estimate import estimate, seconds

    shown = Table(_ids(), "seeds", "steps a run", "parameters", "memory", "time", title=f"{recipe.name} -> {folder}")
    for planned in recipe.planned:
        check_engine(planned)
        size = estimate(planned.experiment)
        seeds = in_ranges(planned.experiment.seeds)
        sizes = (f"{size.steps:,}", f"{size.parameters:,}", in_bytes(size.memory))
        shown.add_row(planned.id, seeds, *sizes, in_time(seconds(planned.experiment, size)))
    out.print(shown)
    out.print("memory and time: about that much for one run by itself, without what its strategy adds")
    if recipe.searches:
        trials = sum(search.size for search in recipe.searches)
        count = sum(search.size * len(search.section.seeds) for search in recipe.searches)
        out.print(f"before them: a search of {trials} settings, {count} shorter runs; sizes are those without it")
    runs = sum(len(p.experiment.seeds) for p in recipe.planned)
    out.print(f"{runs} runs of {len(recipe.planned)} experiments; nothing was run")


def _ids() -> Column:
    """A column of experiment ids: never cut off, since they are what one types and looks for."""
    return Column("experiment", overflow="fold", no_wrap=True, min_width=28)


def _print_results(recipe: Recipe, outcomes: Sequence[Any]) -> None:
    """A line an experiment."""
    from acn_cl.metrics import average_accuracy, average_forgetting, learning_accuracy

    measures = (average_accuracy, average_forgetting, learning_accuracy)
    shown = Table(_ids(), "accuracy %", "forgetting", "learned %", "seeds", title=recipe.name)
    for experiment in recipe.planned:
        own = [o.path for o in outcomes if o.experiment == experiment.id and o.state != "failed"]
        matrices = list(_matrices(own))
        if matrices:
            shown.add_row(experiment.id, *[_mean_and_std(one, matrices) for one in measures], str(len(matrices)))
    if shown.row_count:
        out.print(shown)


def _matrices(folders: Sequence[Path]) -> Iterator[Any]:
    """Accuracies of the whole network, run by run: there may be thousands. One that cannot be read is told."""
    from acn_cl.runs.load import read_run

    for folder in folders:
        try:
            yield read_run(folder).by_depth[..., -1]
        except UserError as error:
            err.print(str(error), markup=False)


def _mean_and_std(measure: Callable[[Any], Any], matrices: Sequence[Any]) -> str:
    """In percent, over seeds; a dash where the measure is undefined (forgetting, after one experience)."""
    from acn_cl.stats import summarise

    try:
        summary = summarise([100 * float(measure(matrix)) for matrix in matrices])
    except ValueError:
        return "-"
    return f"{summary.mean:.1f}" + (f" ± {summary.std:.1f}" if summary.n > 1 else "")


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs, and CSV files of accuracy matrices; merged.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Where the report goes.")] = Path("report"),
    equivalence: Annotated[
        float, typer.Option(metavar="POINTS", help="Also test whether two differ by less than so many points.")
    ] = 0.0,
    verify: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Compute every number of a report.html again instead.")
    ] = None,
) -> None:
    """Make report.html, results.csv, results.md, tables and figures from run folders; or verify a report."""
    if verify is not None:
        raise typer.Exit(_verify(verify, runs or []))
    if not runs:
        raise UserError("a folder of runs is wanted: acn-cl report runs/quick")
    _report(runs, folder, equivalence)


def _report(runs: Sequence[Path], folder: Path, equivalence: float = 0.0) -> None:
    from acn_cl.reports import make_report

    path = make_report(runs, folder, equivalence)
    out.print(f"report: {path.resolve()}", markup=False, soft_wrap=True)


def _verify(path: Path, runs: Sequence[Path]) -> int:
    from acn_cl.reports.verification import MOST_SHOWN
    from acn_cl.reports.verification import verify as verify_report

    found = verify_report(path, runs)
    for name, count in found.checked.items():
        out.print(f"{name}: {count} values checked", markup=False, soft_wrap=True)
    for name in found.missing:
        out.print(f"{name}: not beside the report, not checked", markup=False, soft_wrap=True)
    for difference in found.differences[:MOST_SHOWN]:
        out.print(f"differs: {difference}", markup=False, soft_wrap=True)
    if count := len(found.differences):
        more = f", the first {MOST_SHOWN} above" if count > MOST_SHOWN else ""
        err.print(f"{count} difference{'s' * (count > 1)} between the report and its runs{more}", markup=False)
        return SOME_FAILED
    out.print("every number is what the runs give")
    return DONE


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A folder of runs.")],
    b: Annotated[Path, typer.Argument(help="Another, with the same experiments and seeds.")],
    equivalence: Annotated[
        float, typer.Option(metavar="POINTS", help="Also test whether the two differ by less than so many points.")
    ] = 0.0,
) -> None:
    """Compare two folders of runs, experiment by experiment, on the seeds that both have."""
    from acn_cl.reports.comparisons import compare as compare_runs
    from acn_cl.reports.words import said
    from acn_cl.runs.load import load_runs

    for line in said(compare_runs(load_runs(a), load_runs(b), equivalence), str(a), str(b)):
        out.print(line, markup=False)


@app.command()
def status(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
) -> None:
    """Say what is done, running, dead or failed, and why."""
    from acn_cl.runs.folder import STATUS, read_status

    shown = Table("run", "state", "experience", "epoch", "why")
    counts: dict[str, int] = {}
    for root in runs:
        if not root.is_dir():
            raise UserError(f"{root}: {'this is a file' if root.exists() else 'no such folder'}; give a folder of runs")
        for path in sorted(root.glob(f"**/seed-*/{STATUS}")):
            try:
                found = read_status(path.parent)
                state, progress, why = found.state, found.progress, found.error or ""
            except UserError as error:
                state, progress, why = "damaged", {}, str(error)
            counts[state] = counts.get(state, 0) + 1
            places = [f"{progress.get(key, '?')}/{progress.get(key + 's', '?')}" for key in ("experience", "epoch")]
            shown.add_row(escape(str(path.parent.relative_to(root))), STYLES.get(state, state), *places, escape(why))
    if not counts:
        raise UserError(f"{', '.join(map(str, runs))}: no runs in there (looked for */seed-*/{STATUS})")
    out.print(shown)
    out.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))


STYLES = {"done": "[green]done[/]", "failed": "[red]failed[/]", "died": "[red]died[/]", "running": "[cyan]running[/]"}


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help=", ".join(LISTS))]) -> None:
    """List what a spec can name."""
    if what not in LISTS:
        raise UserError(f"there is no list of {what!r}; {suggest(what, LISTS)}")
    shown = Table("name", "what it is", "keys of its own")
    for name, about, keys in _lines(what):
        shown.add_row(escape(name), escape(about), escape(keys))
    out.print(shown)


def _lines(what: str) -> list[tuple[str, str, str]]:
    if what == "recipes":
        data = {name: read_spec_file(path).data for name, path in recipe_files().items()}
        return [(name, str(spec.get("about", "")).strip().split("\n")[0], "") for name, spec in data.items()]
    return [(name, line.about, _keys(what, line)) for name, line in table(what).items()]


def _keys(what: str, line: Entry) -> str:
    fields = dict(line.settings.model_fields)
    if what == "backbones":
        from acn_cl.backbones.presets import backbone_fields

        fields = backbone_fields(line.fixed["block"], line.fixed["wiring"])
    values = {f.alias or key: "..." if f.is_required() else f.get_default() for key, f in fields.items()}
    return ", ".join(f"{key}={value}" for key, value in {**values, **line.defaults}.items())


@data_app.command("list")
def data_list() -> None:
    """List the data sets, and where each was found."""
    from acn_cl.benchmarks.datasets.inspect import list_datasets
    from acn_cl.display import in_bytes

    for found in list_datasets():
        info = found.info
        size = f", {in_bytes(found.bytes)}" if found.bytes else ""
        here = found.problem or (f"{found.layout} in {found.folder}{size}" if found.layout else "not found")
        style = "red" if found.problem else "green" if found.layout else "yellow"
        out.print(f"[bold]{info.name}[/]  [{style}]{escape(here)}[/]", soft_wrap=True)
        out.print(f"    {escape(info.about)}", soft_wrap=True)
        out.print(f"    [dim]licence: {escape(info.licence)}; cite: {escape(info.citation)}[/]", soft_wrap=True)


@data_app.command("verify")
def data_verify(name: Annotated[str, typer.Argument(help="A data set; acn-cl data list shows them.")]) -> None:
    """Read one data set whole and say what is wrong with it."""
    from acn_cl.benchmarks.datasets.inspect import verify

    findings = verify(name)
    for finding in findings:
        out.print(f"{finding.level:5} {finding.text}", markup=False, soft_wrap=True)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(WRONG_INPUT)


@data_app.command("path")
def data_path(name: Annotated[str, typer.Argument(help="A data set; acn-cl data list shows them.")]) -> None:
    """Print where one data set lies."""
    from acn_cl.benchmarks.datasets.inspect import path

    print(path(name))


@app.command("new-strategy")
def new_strategy(
    name: Annotated[str, typer.Argument(help="Such as my-method.")],
    folder: Annotated[Path, typer.Option("--in", help="Where the two files go.")] = Path(),
) -> None:
    """Write a strategy that works, and its test, to start one of your own from."""
    from acn_cl.strategies.scaffold import new_strategy as write

    for path in write(name, folder):
        out.print(f"wrote {path}", markup=False, soft_wrap=True)


@app.command()
def bench(
    folder: Annotated[Path, typer.Option("--out", help="Where bench.json and bench.md go.")] = Path("bench"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small networks on digits: that it runs, not how fast.")
    ] = False,
) -> None:
    """Time ours beside plain Avalanche and the hardware's matrix products. A bench that was cut off goes on."""
    from dataclasses import replace

    from acn_cl.bench import QUICK, Plan, markdown
    from acn_cl.bench import bench as measure

    plan = replace(QUICK if quick else Plan(), device=device, precision=precision)
    report = measure(plan, folder, lambda line: out.print(line, markup=False))
    out.print(markdown(report), markup=False, soft_wrap=True)
    out.print(f"figures: {(folder / 'bench.md').resolve()}", markup=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Look at versions, devices, data sets and folders: what works here, what does not, and the mend."""
    from acn_cl.doctor import examine

    shown = Table("", "what", "found", "what to do")
    bad = 0
    for finding in examine(Path("runs")):
        bad += finding.good is False
        mark = {True: "[green]ok[/]", False: "[red]bad[/]", None: "[yellow]--[/]"}[finding.good]
        shown.add_row(mark, finding.what, escape(finding.says), escape(finding.mend))
    out.print(shown)
    raise typer.Exit(SOME_FAILED if bad else DONE)


_ClickException: Any = typer.BadParameter.__mro__[2]
"""Click's base of usage errors, which newer typers carry inside and older ones import: reached this way in both."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script. Exits 0, 1, 2, 3, 130 or 143; see the README."""
    heed(signal.SIGINT, signal.default_int_handler)
    heed(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", "no QP solver found")  # only Avalanche's GEM wants one, and it says so itself
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        if code == 128 + signal.SIGINT:  # what some versions of typer make of it
            raise KeyboardInterrupt
    except UserError as error:
        code = _complain(str(error), WRONG_INPUT)
    except _ClickException as error:
        code = _complain(error.format_message(), WRONG_INPUT)
    except Interrupted as stopped:
        code = _complain(str(stopped), 128 + stopped.signal)
    except Ended as ended:
        code = _complain(f"process {launch().rank}: {ended}", SOME_FAILED, everywhere=True)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted; the same command takes up what is left", 128 + signal.SIGINT)
    except Terminated:
        code = _complain("terminated; the same command takes up what is left", 128 + signal.SIGTERM)
    except BrokenPipeError:  # `acn-cl list streams | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except Exception as error:
        message = f"a fault of ours: {type(error).__name__}: {error} (acn-cl --debug … shows the traceback)"
        code = _complain(message, OUR_FAULT, everywhere=True)
    _end_quietly()
    sys.exit(code or DONE)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _end_quietly() -> None:
    """From here on a signal ends the process as it ends any other: an exception would show the insides of exiting."""
    for number in (signal.SIGINT, signal.SIGTERM):
        heed(number, signal.SIG_DFL)


def _complain(message: str, code: int, everywhere: bool = False) -> int:
    """Say it, once: of several processes the others say only what may be theirs alone (``everywhere``)."""
    _end_quietly()
    if launch().rank and not everywhere:
        return code
    if debug:
        err.print_exception()
    err.print(f"acn-cl: {' '.join(message.split())}", markup=False)
    return code


if __name__ == "__main__":
    main()
