"""From a recipe to run folders: check everything first, then run what is not done yet."""

from pathlib import Path
from typing import Any

import torch

from acn_cl.bookkeeping import Display, Outcome, Unfailing
from acn_cl.bookkeeping import Quiet as Quiet
from acn_cl.bookkeeping import failed as failed
from acn_cl.choosing import chosen
from acn_cl.errors import SpecError, UserError
from acn_cl.executors.planning import tasks_of, together
from acn_cl.executors.task import Executor, Job
from acn_cl.folders import check_free, check_same_spec
from acn_cl.recipe import Planned, Recipe, load_recipe
from acn_cl.share import Share
from acn_cl.spec import Experiment
from acn_cl.tables import is_dotted, resolve
from acn_cl.together import keeper_of
from acn_cl.trainer import why_alone
from acn_cl.training.device import allow_determinism, choose_device, choose_precision
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.launch import processes_of
from acn_cl.training.parts import refusal as refusal_of_parts
from acn_cl.training.randomness import own_random_state
from acn_cl.training.session import build_network, build_strategy, build_stream
from acn_cl.training.world import SharedStop, World, join


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
        check_same_spec(job.planned, keeper_of(job, shown, world).folder)
    units = together(jobs) if only is None else only.of(together(jobs))
    outcomes: dict[Path, Outcome] = {}
    for job in (job for unit in units for job in unit):
        keeper = keeper_of(job, shown, world)
        if keeper.folder.is_done():
            outcomes[job.path] = keeper.skipped()
            shown.run_ended(outcomes[job.path])
    left = [rest for unit in units if (rest := [job for job in unit if job.path not in outcomes])]
    if left:
        world.on_first(lambda: check_free(out, [job for unit in left for job in unit], asked))
        for ended in trainer.run(
            tasks_of(left, len(outcomes)), shown, SharedStop(asked, world) if world.shared else asked
        ):
            for outcome in ended.outcomes:
                outcomes[outcome.path] = outcome
                shown.run_ended(outcome)
    return [outcomes[job.path] for job in jobs if job.path in outcomes]


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
    why = why_alone(experiment, strategy)
    if experiment.engine == "stacked" and why is not None:
        raise SpecError(("engine",), f"stacked is not possible for {planned.id}: {why}; use auto")


def _try_backbone(experiment: Experiment, stream: Any) -> None:
    """Build the network once: without memory where it is of our blocks, for real where it is somebody's own."""
    ours = not is_dotted(experiment.backbone.name or "")
    with torch.device("meta" if ours else "cpu"):
        build_network(experiment, experiment.seeds_of(experiment.seeds[0]), stream)
