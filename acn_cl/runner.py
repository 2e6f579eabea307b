"""From a recipe to run folders: check everything first, then run what is not done yet."""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError

from acn_cl.bookkeeping import Bookkeeper, Display, OfStack, Outcome, Unfailing
from acn_cl.bookkeeping import Quiet as Quiet
from acn_cl.bookkeeping import failed as failed
from acn_cl.choosing import chosen
from acn_cl.errors import Ended, SpecError, UserError
from acn_cl.executors.planning import tasks_of, together
from acn_cl.executors.task import Executor, Job
from acn_cl.in_step import in_step
from acn_cl.recipe import Planned, Recipe, load_recipe
from acn_cl.runs.checkpoint import Checkpoint, position_of
from acn_cl.runs.folder import Held, RunFolder
from acn_cl.share import Share
from acn_cl.spec import Experiment, is_inert
from acn_cl.tables import is_dotted, resolve
from acn_cl.together import SharedBookkeeper, SharedFolder
from acn_cl.training.device import allow_determinism, choose_device, choose_precision
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.launch import processes_of
from acn_cl.training.parts import refusal as refusal_of_parts
from acn_cl.training.randomness import own_random_state
from acn_cl.training.resume import can_resume
from acn_cl.training.session import Session, build_network, build_strategy, build_stream
from acn_cl.training.stack import StackSession
from acn_cl.training.stack_group import refusal
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_strategy import can_stack
from acn_cl.training.watch import Diverged
from acn_cl.training.world import SharedStop, World, join

Folder = RunFolder | SharedFolder
Keeper = Bookkeeper | SharedBookkeeper
WAIT_AT_START = 5.0
"""Seconds in which a process that was killed, or is still saving, has let go of its folders."""
WAIT_FOR_LOCK = 120.0
"""Seconds in which a file server gives back the locks of a machine that is gone (NFS: its lease time, 90 s)."""


def run(
    what: str | Recipe | Experiment,
    out: Path | str,
    display: Display | None = None,
    stop: StopRequest | None = None,
    executor: Executor | None = None,
    only: Share | None = None,
) -> list[Outcome]:
    """Run every experiment of a recipe, for every seed, into ``out/<experiment>/seed-<n>/``.

    A recipe with a search runs its trials first, in ``out/search/``, and then takes what they chose.
    Runs that are done already are skipped, and runs that were cut off go on from their last checkpoint. A run that
    fails leaves its reason in ``status.json``, and the others go on.

    Args:
        what: a recipe's name, a YAML file's path, a loaded recipe, or one experiment.
        out: the runs' folder; made if it is not there.
        display: shows progress.
        stop: a request to stop, looked at after every step.
        executor: who trains; ``None``: this process.
        only: the share of the runs that is this process's; ``None``: all.

    Returns:
        one outcome a run, in order.

    Raises:
        UserError: anything in the spec, the data or the folder is wrong, or another process is at work on one of the
            runs; none has begun then.
        Interrupted: ``stop`` asked for it; the runs at hand are saved.
        Ended: of several processes that train together (torchrun), one cannot go on.
    """
    recipe, asked = _as_recipe(what), stop or StopRequest()
    world = join()
    with own_random_state(0):  # what building draws is not taken from the caller's generators
        shown = Unfailing(display if display is not None and world.first else Quiet())
        trainer = _trainer(executor, world)
        return _run(recipe, Path(out).absolute(), shown, asked, trainer, only, world)


def _trainer(executor: Executor | None, world: World) -> Executor:
    """
    Raises:
        UserError: torchrun has started this process, and somebody else is to train.
    """
    here = resolve("acn_cl.executors.local:Local")
    if not world.shared:
        return executor or here()
    if not isinstance(executor, here | None):
        raise UserError("--executor: torchrun's processes train every run together; take one of the two")
    return here(world)  # type: ignore[no-any-return]


def _run(
    recipe: Recipe, out: Path, shown: Display, asked: StopRequest, trainer: Executor, only: Share | None, world: World
) -> list[Outcome]:
    check(recipe)
    if recipe.searches:
        if only is not None:
            raise UserError("--only: a search needs all its trials to choose; give it to one machine, or to Ray")
        if world.shared:
            raise UserError("search: torchrun's processes cannot choose together; search without torchrun")
        recipe = chosen(
            recipe, out, lambda trials, place: _run(trials, place, shown, asked, trainer, None, world), shown
        )
    jobs = [Job(p, seed, out / p.id / f"seed-{seed}") for p in recipe.planned for seed in p.experiment.seeds]
    for job in jobs:
        _check_same_spec(job.planned, keeper_of(job, shown, world).folder)
    units = together(jobs) if only is None else only.of(together(jobs))
    outcomes: dict[Path, Outcome] = {}
    for job in (job for unit in units for job in unit):
        keeper = keeper_of(job, shown, world)
        if keeper.folder.is_done():
            outcomes[job.path] = keeper.skipped()
            shown.run_ended(outcomes[job.path])
    left = [rest for unit in units if (rest := [job for job in unit if job.path not in outcomes])]
    if left:
        world.on_first(lambda: _check_free(out, [job for unit in left for job in unit], asked))
        for ended in trainer.run(
            tasks_of(left, len(outcomes)), shown, SharedStop(asked, world) if world.shared else asked
        ):
            for outcome in ended.outcomes:
                outcomes[outcome.path] = outcome
                shown.run_ended(outcome)
    return [outcomes[job.path] for job in jobs if job.path in outcomes]


def keeper_of(job: Job, display: Display, world: World) -> Keeper:
    """Who keeps a run's folder: this process, or the first of several."""
    own = Bookkeeper(job.planned, job.seed, job.path, display)
    return SharedBookkeeper(own, world) if world.shared else own


def _as_recipe(what: str | Recipe | Experiment) -> Recipe:
    if isinstance(what, Recipe):
        return what
    if isinstance(what, Experiment):
        return Recipe(what.name, what.about, (Planned(what.name, {}, what),))
    return load_recipe(what)


def check(recipe: Recipe) -> None:
    """Find out before anything is written whether device, data, backbone and strategy of every experiment are there.

    Raises:
        UserError: one is not.
    """
    streams: dict[str, Any] = {}
    networks: set[str] = set()
    for planned in recipe.planned:
        experiment = planned.experiment
        if experiment.deterministic:
            allow_determinism()
        choose_precision(experiment.precision, choose_device(experiment.device))
        key = experiment.stream.model_dump_json()
        if key not in streams:
            streams[key] = build_stream(experiment, experiment.seeds_of(experiment.seeds[0]))
        if (both := key + experiment.backbone.model_dump_json()) not in networks:
            _try_backbone(experiment, streams[key])
            networks.add(both)
        check_engine(planned)


def check_engine(planned: Planned) -> None:
    """Find out whether an experiment can be trained by the engine that it asks for; no data is opened.

    Raises:
        UserError: it cannot, or the strategy cannot be built.
    """
    experiment = planned.experiment
    strategy = build_strategy(experiment)
    if (no := refusal_of_parts(experiment, strategy, processes_of(experiment.resources.processes))) is not None:
        raise no
    why = _why_alone(experiment, strategy)
    if experiment.engine == "stacked" and why is not None:
        raise SpecError(("engine",), f"stacked is not possible for {planned.id}: {why}; use auto")


def _try_backbone(experiment: Experiment, stream: Any) -> None:
    """Build the network once: without memory where it is of our blocks, for real where it is somebody's own."""
    ours = not is_dotted(experiment.backbone.name or "")
    with torch.device("meta" if ours else "cpu"):
        build_network(experiment, experiment.seeds_of(experiment.seeds[0]), stream)


def _check_same_spec(planned: Planned, folder: Folder) -> None:
    """A folder holds one run. Another spec's results are not overwritten.

    Raises:
        UserError: the folder was begun with another spec; the message names the first difference.
    """
    written = folder.written_spec()
    if written is None:
        return
    there, here = _flat(_as_now(written["experiment"])), _flat(planned.experiment.as_dict())
    for key in sorted(there.keys() | here.keys()):
        if not is_inert(key) and there.get(key) != here.get(key):
            raise UserError(
                f"{folder.path} holds a run with {key} {json.dumps(there.get(key))}, and this one has "
                f"{json.dumps(here.get(key))}; choose another --out, or remove that folder"
            )


def _as_now(written: dict[str, Any]) -> dict[str, Any]:
    """A spec of an earlier version with the keys that have joined since, at their defaults."""
    try:
        return Experiment.model_validate(written).as_dict()
    except (ValidationError, UserError):
        return written


def _check_can_be_written(out: Path) -> None:
    """
    Raises:
        UserError: nothing can be made in ``out``.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None


def _check_free(out: Path, jobs: Sequence[Job], stop: StopRequest) -> None:
    """Have nobody at work on a run before any of them begins.

    Raises:
        Held: another process is; the message says which.
        UserError: nothing can be made in ``out``.
    """
    _check_can_be_written(out)
    until = time.monotonic() + WAIT_AT_START
    for folder in (RunFolder(job.path, job.planned.id, job.seed) for job in jobs):
        if folder.is_begun():
            try:
                _hold(folder, stop, until)
            except Held:
                raise
            except UserError:  # it cannot be written, which ends that run alone
                continue
            folder.release()


def _hold(folder: Folder, stop: StopRequest, until: float) -> None:
    """Lock a folder; a process that has just died may hold it for a while longer.

    Raises:
        UserError: it cannot be written, or another process holds it still.
        Interrupted: ``stop`` asked for it.
    """
    while True:
        try:
            return folder.hold()
        except Held:
            stop.check()
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def _flat(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _is_lean(experiment: Experiment) -> bool:
    """Whether a run takes the lean step, in a stack or alone, rather than Avalanche's call-backs."""
    return _why_alone(experiment, build_strategy(experiment)) is None


def _why_alone(experiment: Experiment, strategy: Any) -> str | None:
    if (processes := processes_of(experiment.resources.processes)) > 1:
        return f"{processes} processes share each batch"
    if not can_stack(strategy):
        return f"strategy {experiment.strategy.name} needs more of a step than parameters and gradients"
    return refusal(experiment)


# How they train.


def run_stack(
    keepers: Sequence[Keeper], display: Display, stop: StopRequest, place: tuple[int, int], world: World
) -> list[Outcome]:
    """Train some runs together, those apart that go on from different positions; one outcome each, in order.

    Raises:
        Interrupted: ``stop`` asked for it; the runs are saved.
    """
    outcomes: dict[int, Outcome] = {}
    with _held(keepers, stop, world) as refused:
        outcomes |= {number: keepers[number].outcome("failed", why) for number, why in refused.items()}
        starts = {n: _start(keepers[n], outcomes, n) for n in range(len(keepers)) if n not in outcomes}
        starts = {n: start for n, start in starts.items() if n not in outcomes}
        if not world.shared:
            starts = in_step(cast(Sequence[Bookkeeper], keepers), starts)
        for _, same in groupby(sorted(starts, key=lambda n: position_of(starts[n])), lambda n: position_of(starts[n])):
            together = list(same)
            some = [keepers[n] for n in together]
            alone = partial(_train_alone, world=world)
            train = _train_lean if _is_lean(some[0].planned.experiment) else alone
            number = place[0] + len(outcomes), place[1]
            with _own_end(some, world) as ends:
                ends[:] = train(some, [starts[n] for n in together], display, stop, number)
            outcomes |= dict(zip(together, ends, strict=True))
    return [outcomes[number] for number in range(len(keepers))]


@contextmanager
def _own_end(keepers: Sequence[Keeper], world: World) -> Iterator[list[Outcome]]:
    """What ends these runs is written into their folders, and only a wish to stop goes on from there.

    Where several processes train together, so does whatever may have happened to one of them alone.
    """
    ends: list[Outcome] = []
    try:
        yield ends
    except (KeyboardInterrupt, SystemExit, Interrupted):
        for keeper in keepers:
            keeper.interrupted()
        raise
    except Exception as error:
        ends[:] = [keeper.failed(error) for keeper in keepers]
        if world.shared and not isinstance(error, Diverged):
            raise Ended(f"{ends[0].experiment} seed {ends[0].seed}: {ends[0].error}") from error


@contextmanager
def _held(keepers: Sequence[Keeper], stop: StopRequest, world: World) -> Iterator[dict[int, str]]:
    """Hold the folders; nobody else can write into them. Gives those that cannot be held, and why."""
    refused: dict[int, str] = {}
    # Several processes must agree on when to give up, and their clocks do not: they do not wait.
    until = -math.inf if world.shared else time.monotonic() + WAIT_FOR_LOCK
    with ExitStack() as held:
        for number, keeper in enumerate(keepers):
            try:
                _hold(keeper.folder, stop, until)
                held.callback(keeper.folder.release)
            except UserError as error:
                refused[number] = str(error)
        yield refused


def _start(keeper: Keeper, outcomes: dict[int, Outcome], number: int) -> Checkpoint | None:
    try:
        if keeper.folder.is_done():  # by a worker whose word of it was lost
            outcomes[number] = keeper.outcome("done")
            return None
        return keeper.start()
    except Exception as error:
        outcomes[number] = keeper.failed(error)
        return None


def _train_alone(
    keepers: Sequence[Keeper],
    starts: Sequence[Checkpoint | None],
    display: Display,
    stop: StopRequest,
    place: tuple[int, int],
    world: World,
) -> list[Outcome]:
    """One run through Avalanche's call-backs."""
    ((keeper,), (start,)) = keepers, starts
    session = Session(keeper.planned.experiment, keeper.seed, keeper.folder.path, display.note, world)
    if start is None and not can_resume(session.strategy) and keeper.folder.written_spec() is not None:
        display.note(f"{keeper.name}: starts again, since its strategy does not say what its state is")
    display.run_started(*place, keeper.name, session.experiences, session.experiment.epochs)
    keeper.begin(session, session.network, 1, start is not None)
    session.train(keeper, stop, start)
    return [keeper.done(session, session.results, _plain_state(session.network))]


def _train_lean(
    keepers: Sequence[Keeper],
    starts: Sequence[Checkpoint | None],
    display: Display,
    stop: StopRequest,
    place: tuple[int, int],
) -> list[Outcome]:
    """One run or several as a stack."""
    session = StackSession([(keeper.planned.experiment, keeper.seed) for keeper in keepers], display.note)
    first = session.runs[0]
    more = f" and {len(keepers) - 1} more at once" if len(keepers) > 1 else ""
    display.run_started(*place, keepers[0].name + more, first.experiences, first.experiment.epochs)
    network = first.build_network()
    going_on = [start for start in starts if start is not None]
    told: set[int] = set()
    watchers = []
    for keeper, run in zip(keepers, session.runs, strict=True):
        keeper.begin(run, network, len(keepers), bool(going_on))
        watchers.append(OfStack(cast(Bookkeeper, keeper), run, told))  # a stack is one process's
    session.train(watchers, stop, going_on or None)
    return [_ended(keeper, run) for keeper, run in zip(keepers, session.runs, strict=True)]


def _ended(keeper: Keeper, run: StackedRun) -> Outcome:
    try:
        return keeper.failed(run.failure) if run.failure else keeper.done(run, run.results, run.weights)
    except OSError as error:
        return keeper.failed(error)


def _plain_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
