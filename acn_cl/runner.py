"""From a recipe to run folders: check everything first, then run what is not done yet."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch

from acn_cl.bookkeeping import Bookkeeper, Display, OfStack, Outcome, Unfailing
from acn_cl.bookkeeping import Quiet as Quiet
from acn_cl.bookkeeping import failed as failed
from acn_cl.errors import Ended, SpecError, UserError
from acn_cl.recipe import Planned, Recipe, load_recipe
from acn_cl.runs.checkpoint import Checkpoint
from acn_cl.runs.folder import Held, RunFolder
from acn_cl.spec import Experiment
from acn_cl.tables import is_dotted
from acn_cl.together import SharedBookkeeper, SharedFolder
from acn_cl.training.device import allow_determinism, choose_device, choose_precision
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.launch import launch
from acn_cl.training.parts import refusal as refusal_of_parts
from acn_cl.training.randomness import own_random_state
from acn_cl.training.resume import can_resume
from acn_cl.training.session import Session, build_network, build_strategy, build_stream
from acn_cl.training.stack import StackSession
from acn_cl.training.stack_group import group, refusal
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_size import widest_stack
from acn_cl.training.stack_strategy import can_stack
from acn_cl.training.watch import Diverged
from acn_cl.training.world import SharedStop, World, joined

Keeper = Bookkeeper | SharedBookkeeper
INERT = ("name", "about", "seeds", "loggers", "checkpoint", "device", "engine")
"""Keys of a spec that may differ between two starts of one run: they change no result."""
SINCE = {"accumulate": 1, "tf32": False}
"""Keys that specs have got since the first run folders were written, and what was done before."""


def run(
    what: str | Recipe | Experiment,
    out: Path | str,
    display: Display | None = None,
    stop: StopRequest | None = None,
) -> list[Outcome]:
    """Run every experiment of a recipe, for every seed, into ``out/<experiment>/seed-<n>/``.

    Runs that are done already are skipped, and runs that were cut off go on from their last checkpoint. A run that
    fails leaves its reason in ``status.json``, and the others go on.

    Args:
        what: a recipe's name, a YAML file's path, a loaded recipe, or one experiment.
        out: the runs' folder; made if it is not there.
        display: shows progress.
        stop: a request to stop, looked at after every step.

    Returns:
        one outcome a run, in order.

    Raises:
        UserError: anything in the spec, the data or the folder is wrong; nothing has been made then.
        Interrupted: ``stop`` asked for it; the run at hand is saved.
        Ended: of several processes that train together (torchrun), one cannot go on.
    """
    with own_random_state(0), joined() as world:  # what building draws is not taken from the caller's generators
        return _run(_as_recipe(what), out, display, stop or StopRequest(), world)


def _run(recipe: Recipe, out: Path | str, display: Display | None, asked: StopRequest, world: World) -> list[Outcome]:
    check(recipe)
    shown = Unfailing(display if display is not None and world.first else Quiet())
    jobs = [(planned, seed) for planned in recipe.planned for seed in planned.experiment.seeds]
    own = [Bookkeeper(planned, seed, _path(out, planned, seed), shown) for planned, seed in jobs]
    keepers: list[Keeper] = [SharedBookkeeper(keeper, world) if world.shared else keeper for keeper in own]
    asked = SharedStop(asked, world) if world.shared else asked
    for (planned, _), keeper in zip(jobs, keepers, strict=True):
        _check_same_spec(planned, keeper.folder)
    outcomes: dict[int, Outcome] = {}
    for number, keeper in enumerate(keepers):
        if keeper.folder.is_done():
            outcomes[number] = keeper.skipped()
            shown.run_ended(outcomes[number])
    left = [number for number in range(len(jobs)) if number not in outcomes]
    if left:
        world.on_first(lambda: _check_can_be_written(Path(out)))
    for stack in _stacks([keepers[number] for number in left]):
        asked.check()
        numbers = [left[index] for index in stack]
        place = (len(outcomes) + 1, len(jobs))
        for number, outcome in zip(
            numbers, _run_stack([keepers[n] for n in numbers], shown, asked, place, world), strict=True
        ):
            outcomes[number] = outcome
            shown.run_ended(outcome)
    return [outcomes[number] for number in range(len(jobs))]


def _as_recipe(what: str | Recipe | Experiment) -> Recipe:
    if isinstance(what, Recipe):
        return what
    if isinstance(what, Experiment):
        return Recipe(what.name, what.about, (Planned(what.name, {}, what),))
    return load_recipe(what)


def _path(out: Path | str, planned: Planned, seed: int) -> Path:
    return Path(out) / planned.id / f"seed-{seed}"


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
    if (no := refusal_of_parts(experiment, strategy, launch().size)) is not None:
        raise no
    why = _why_alone(experiment, strategy)
    if experiment.engine == "stacked" and why is not None:
        raise SpecError(("engine",), f"stacked is not possible for {planned.id}: {why}; use auto")


def _try_backbone(experiment: Experiment, stream: Any) -> None:
    """Build the network once: without memory where it is of our blocks, for real where it is somebody's own."""
    ours = not is_dotted(experiment.backbone.name or "")
    with torch.device("meta" if ours else "cpu"):
        build_network(experiment, experiment.seeds_of(experiment.seeds[0]), stream)


def _check_same_spec(planned: Planned, folder: RunFolder | SharedFolder) -> None:
    """A folder holds one run. Another spec's results are not overwritten.

    Raises:
        UserError: the folder was begun with another spec; the message names the first difference.
    """
    written = folder.written_spec()
    if written is None:
        return
    there, here = SINCE | _flat(written["experiment"]), _flat(planned.experiment.as_dict())
    for key in sorted(there.keys() | here.keys()):
        if key.split(".")[0] not in INERT and there.get(key) != here.get(key):
            raise UserError(
                f"{folder.path} holds a run with {key} {json.dumps(there.get(key))}, and this one has "
                f"{json.dumps(here.get(key))}; choose another --out, or remove that folder"
            )


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


def _flat(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


# Which runs train together.


def _stacks(keepers: Sequence[Keeper]) -> list[list[int]]:
    """Indices of the runs in the order in which they train, together where that is possible and faster."""
    jobs = [(keeper.planned.experiment, keeper.seed) for keeper in keepers]
    return group(
        jobs,
        can_stack=lambda job: can_stack(build_strategy(job[0])),
        sizes=lambda job: StackedRun(*job).sizes,
        widest=lambda job: _width(job[0]),
    )


def _width(experiment: Experiment) -> int:
    """Runs in a stack at most. On a CPU one run keeps all cores busy, and stacks are made only on request."""
    wanted = experiment.engine == "stacked" or choose_device(experiment.device).type == "cuda"
    return widest_stack(experiment) if wanted and launch().size == 1 else 1


def _is_lean(experiment: Experiment) -> bool:
    """Whether a run takes the lean step, in a stack or alone, rather than Avalanche's call-backs."""
    return _why_alone(experiment, build_strategy(experiment)) is None


def _why_alone(experiment: Experiment, strategy: Any) -> str | None:
    if (processes := launch().size) > 1:
        return f"{processes} processes share each batch"
    if not can_stack(strategy):
        return f"strategy {experiment.strategy.name} needs more of a step than parameters and gradients"
    return refusal(experiment)


# How they train.


def _run_stack(
    keepers: Sequence[Keeper], display: Display, stop: StopRequest, place: tuple[int, int], world: World
) -> list[Outcome]:
    """Train some runs together, those apart that go on from different positions; one outcome each, in order."""
    outcomes: dict[int, Outcome] = {}
    with _held(keepers) as refused:
        outcomes |= {number: keepers[number].outcome("failed", why) for number, why in refused.items()}
        starts = {n: _start(keepers[n], outcomes, n) for n in range(len(keepers)) if n not in outcomes}
        numbers = sorted((n for n in starts if n not in outcomes), key=lambda n: _position(starts[n]))
        for _, same in groupby(numbers, key=lambda n: _position(starts[n])):
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
def _held(keepers: Sequence[Keeper]) -> Iterator[dict[int, str]]:
    """Hold the folders; nobody else can write into them. Gives those that cannot be held, and why."""
    refused: dict[int, str] = {}
    with ExitStack() as held:
        for number, keeper in enumerate(keepers):
            try:
                keeper.folder.hold()
                held.callback(keeper.folder.release)
            except Held:
                raise
            except UserError as error:
                refused[number] = str(error)
        yield refused


def _start(keeper: Keeper, outcomes: dict[int, Outcome], number: int) -> Checkpoint | None:
    try:
        return keeper.start()
    except Exception as error:
        outcomes[number] = keeper.failed(error)
        return None


def _position(start: Checkpoint | None) -> tuple[int, int, int]:
    return (-1, 0, 0) if start is None else (start.experience, start.epoch, start.batch)


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
