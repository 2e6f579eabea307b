"""From a recipe to run folders: check everything first, then run what is not done yet."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from acn_cl.errors import UserError
from acn_cl.recipe import Planned, Recipe, load_recipe
from acn_cl.runs.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from acn_cl.runs.environment import commit, versions
from acn_cl.runs.folder import RunFolder
from acn_cl.runs.schema import SCHEMA_VERSION
from acn_cl.runs.weights import save_weights
from acn_cl.spec import Experiment
from acn_cl.tables import is_dotted
from acn_cl.training.device import choose_device, choose_precision
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.resume import can_resume
from acn_cl.training.session import Results, Session, Watcher, build_network, build_strategy, build_stream
from acn_cl.training.watch import Diverged

INERT = ("name", "about", "seeds", "loggers", "checkpoint", "device", "engine")
"""Keys of a spec that may differ between two starts of one run: they change no result."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Args:
        experiment: the experiment's id.
        seed: the run's seed.
        path: its folder.
        state: done, skipped (it was done before) or failed.
        error: why it failed, one line.
    """

    experiment: str
    seed: int
    path: Path
    state: str
    error: str | None = None


class Display(Protocol):
    """Who shows the progress of several runs."""

    def run_started(self, number: int, total: int, experiment: str, seed: int, experiences: int, epochs: int) -> None:
        """Run ``number`` (from 1) of ``total`` begins."""

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        """As :meth:`acn_cl.training.session.Watcher.epoch_done`."""

    def experience_done(self, experience: int, results: Results) -> None:
        """As :meth:`acn_cl.training.session.Watcher.experience_done`."""

    def run_ended(self, outcome: Outcome) -> None:
        """It is over, one way or another."""

    def note(self, text: str) -> None:
        """Something that whoever started the runs should know, one line."""


class Quiet:
    """Shows nothing."""

    def run_started(self, number: int, total: int, experiment: str, seed: int, experiences: int, epochs: int) -> None:
        pass

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        pass

    def experience_done(self, experience: int, results: Results) -> None:
        pass

    def run_ended(self, outcome: Outcome) -> None:
        pass

    def note(self, text: str) -> None:
        pass


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
    """
    recipe = _as_recipe(what)
    check(recipe)
    jobs = [(planned, seed) for planned in recipe.planned for seed in planned.experiment.seeds]
    for planned, seed in jobs:
        _check_same_spec(planned, _folder(out, planned, seed))
    shown, asked = display or Quiet(), stop or StopRequest()
    outcomes = []
    for number, (planned, seed) in enumerate(jobs, 1):
        asked.check()
        folder = _folder(out, planned, seed)
        outcomes.append(_run_one(planned, seed, folder, shown, asked, (number, len(jobs))))
        shown.run_ended(outcomes[-1])
    return outcomes


def _as_recipe(what: str | Recipe | Experiment) -> Recipe:
    if isinstance(what, Recipe):
        return what
    if isinstance(what, Experiment):
        return Recipe(what.name, what.about, (Planned(what.name, {}, what),))
    return load_recipe(what)


def _folder(out: Path | str, planned: Planned, seed: int) -> RunFolder:
    return RunFolder(Path(out) / planned.id / f"seed-{seed}", planned.id, seed)


def check(recipe: Recipe) -> None:
    """Find out before anything is written whether device, data, backbone and strategy of every experiment are there.

    Raises:
        UserError: one is not.
    """
    streams: dict[str, Any] = {}
    networks: set[str] = set()
    for planned in recipe.planned:
        experiment = planned.experiment
        choose_precision(experiment.precision, choose_device(experiment.device))
        key = experiment.stream.model_dump_json()
        if key not in streams:
            streams[key] = build_stream(experiment, experiment.seeds_of(experiment.seeds[0]))
        if (both := key + experiment.backbone.model_dump_json()) not in networks:
            _try_backbone(experiment, streams[key])
            networks.add(both)
        build_strategy(experiment)


def _try_backbone(experiment: Experiment, stream: Any) -> None:
    """Build the network once: without memory where it is of our blocks, for real where it is somebody's own."""
    ours = not is_dotted(experiment.backbone.name or "")
    with torch.device("meta" if ours else "cpu"):
        build_network(experiment, experiment.seeds_of(experiment.seeds[0]), stream)


def _check_same_spec(planned: Planned, folder: RunFolder) -> None:
    """A folder holds one run. Another spec's results are not overwritten.

    Raises:
        UserError: the folder was begun with another spec; the message names the first difference.
    """
    written = folder.written_spec()
    if written is None:
        return
    there, here = _flat(written["experiment"]), _flat(planned.experiment.as_dict())
    for key in sorted(there.keys() | here.keys()):
        if key.split(".")[0] not in INERT and there.get(key) != here.get(key):
            raise UserError(
                f"{folder.path} holds a run with {key} {json.dumps(there.get(key))}, and this one has "
                f"{json.dumps(here.get(key))}; choose another --out, or remove that folder"
            )


def _flat(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class _Bookkeeper(Watcher):
    """Keeps a run's folder true while it trains, and passes the news on."""

    def __init__(self, folder: RunFolder, session: Session, display: Display) -> None:
        self._folder, self._display = folder, display
        self.progress = {
            "experience": 0,
            "experiences": session.experiences,
            "epoch": 0,
            "epochs": session.experiment.epochs,
        }

    def epoch_done(self, experience: int, epoch: int, loss: float) -> None:
        self.progress |= {"experience": experience, "epoch": epoch + 1}
        self._folder.write_status("running", self.progress)
        self._display.epoch_done(experience, epoch, loss)

    def write_results(self, results: Results) -> None:
        self._folder.write_results(results.accuracy, results.layers, results.timing)

    def experience_done(self, experience: int, results: Results) -> None:
        self.progress |= {"experience": experience + 1, "epoch": 0}
        self.write_results(results)
        self._folder.write_status("running", self.progress)
        self._display.experience_done(experience, results)

    def save(self, checkpoint: Checkpoint) -> None:
        save_checkpoint(self._folder.path, checkpoint)


def _run_one(
    planned: Planned, seed: int, folder: RunFolder, display: Display, stop: StopRequest, place: tuple[int, int]
) -> Outcome:
    if folder.is_done():
        return Outcome(planned.id, seed, folder.path, "skipped")
    folder.hold()
    progress: dict[str, int] = {}
    try:
        session = Session(planned.experiment, seed, folder.path)
        display.run_started(*place, planned.id, seed, session.experiences, planned.experiment.epochs)
        keeper = _Bookkeeper(folder, session, display)
        progress = keeper.progress
        start = _start(folder, session, display)
        folder.write_spec(_spec(planned, session))
        folder.write_status("running", progress)
        session.train(keeper, stop, start)
        keeper.write_results(session.results)  # all of them, even if the last ones were only in a checkpoint
        if planned.experiment.checkpoint.keep == "weights":
            save_weights(folder.path, session.experiences, _plain_state(session.network))
        folder.write_status("done", progress | {"experience": session.experiences, "epoch": 0})
        remove_checkpoints(folder.path)
        return Outcome(planned.id, seed, folder.path, "done")
    except (KeyboardInterrupt, SystemExit, Interrupted):
        folder.write_status("failed", progress, "interrupted; the same command goes on from its last checkpoint")
        raise
    except Exception as error:
        return _failed(planned, seed, folder, progress, error)
    finally:
        folder.release()


def _start(folder: RunFolder, session: Session, display: Display) -> Checkpoint | None:
    """Where the run in ``folder`` goes on, and a word about what was found there."""
    name = f"{folder.experiment} seed {folder.seed}"
    checkpoint, complaints = load_checkpoint(folder.path)
    for complaint in complaints:
        display.note(complaint)
    if checkpoint is not None:
        at = f"experience {checkpoint.experience + 1}, epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}"
        display.note(f"{name}: goes on from its checkpoint at {at}")
        _note_other_bits(folder, session, display)
    elif not can_resume(session.strategy) and folder.written_spec() is not None:
        display.note(f"{name}: starts again, since its strategy does not say what its state is")
    return checkpoint


def _note_other_bits(folder: RunFolder, session: Session, display: Display) -> None:
    """The numbers of a run that goes on elsewhere are as good, and not the same to the last bit."""
    written = folder.written_spec() or {}
    here = {"precision": session.precision, "threads": torch.get_num_threads(), "device": _device_name(session.device)}
    for key, value in here.items():
        if written.get(key) not in (None, value):
            display.note(
                f"{folder.path}: begun with {key} {written[key]}, goes on with {value}: the last bits may differ"
            )


def _failed(planned: Planned, seed: int, folder: RunFolder, progress: dict[str, int], error: Exception) -> Outcome:
    """One run's end is not the others'. A fault of ours keeps its traceback in ``status.json``."""
    expected = isinstance(error, UserError | Diverged | OSError | MemoryError | torch.OutOfMemoryError)
    reason = str(error) if isinstance(error, UserError | Diverged) else f"{type(error).__name__}: {error}"
    line = " ".join(reason.split()) or type(error).__name__
    trace = None if expected else traceback.format_exc()
    try:
        folder.write_status("failed", progress, line, trace)
    except OSError as second:
        line += f" (and {folder.path} cannot be written: {second.strerror})"
    return Outcome(planned.id, seed, folder.path, "failed", line)


def _plain_state(network: torch.nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _spec(planned: Planned, session: Session) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "id": planned.id,
        "axes": planned.axes,
        "seed": session.seed,
        "experiment": planned.experiment.as_dict(),
        "pins": dict(session.seeds.pins),
        "class_order": [int(c) for c in session.stream.class_order],
        "parameters": sum(p.numel() for p in session.network.backbone.parameters()),
        "device": _device_name(session.device),
        "precision": session.precision,
        "threads": torch.get_num_threads(),
        "stack": 1,
        "versions": versions(),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The runs that did not finish."""
    return [outcome for outcome in outcomes if outcome.state == "failed"]
