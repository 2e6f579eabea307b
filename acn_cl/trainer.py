"""How a task's runs are trained: as a stack, or one through Avalanche's call-backs; each fails for itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch

from acn_cl.bookkeeping import Bookkeeper, Display, OfStack, Outcome
from acn_cl.errors import Ended
from acn_cl.folders import held
from acn_cl.in_step import in_step
from acn_cl.runs.checkpoint import Checkpoint, position_of
from acn_cl.spec import Experiment
from acn_cl.together import Keeper
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.launch import processes_of
from acn_cl.training.resume import can_resume
from acn_cl.training.session import Session, build_strategy
from acn_cl.training.stack import StackSession
from acn_cl.training.stack_group import refusal
from acn_cl.training.stack_run import StackedRun
from acn_cl.training.stack_strategy import can_stack
from acn_cl.training.watch import Diverged
from acn_cl.training.world import World


def why_alone(experiment: Experiment, strategy: Any) -> str | None:
    """What of an experiment the lean step cannot do, so that Avalanche's call-backs train it; ``None``: nothing."""
    if (processes := processes_of(experiment.resources.processes)) > 1:
        return f"{processes} processes share each batch"
    if not can_stack(strategy):
        return f"strategy {experiment.strategy.name} needs more of a step than parameters and gradients"
    return refusal(experiment)


def run_stack(
    keepers: Sequence[Keeper], display: Display, stop: StopRequest, place: tuple[int, int], world: World
) -> list[Outcome]:
    """Train some runs together, those apart that go on from different positions; one outcome each, in order.

    Raises:
        Interrupted: ``stop`` asked for it; the runs are saved.
    """
    outcomes: dict[int, Outcome] = {}
    with held(keepers, stop, world) as refused:
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


def _is_lean(experiment: Experiment) -> bool:
    """Whether a run takes the lean step, in a stack or alone, rather than Avalanche's call-backs."""
    return why_alone(experiment, build_strategy(experiment)) is None


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
