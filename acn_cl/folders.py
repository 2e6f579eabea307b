"""Whose a run's folder is: one spec's, and one process's at a time."""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from acn_cl.errors import UserError
from acn_cl.executors.task import Job
from acn_cl.recipe import Planned
from acn_cl.runs.folder import Held, RunFolder
from acn_cl.spec import Experiment, flatten, is_inert
from acn_cl.together import Folder, Keeper
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.world import World

WAIT_AT_START = 5.0
"""Seconds in which a process that was killed, or is still saving, has let go of its folders."""
WAIT_FOR_LOCK = 120.0
"""Seconds in which a file server gives back the locks of a machine that is gone (NFS: its lease time, 90 s)."""


def check_same_spec(planned: Planned, folder: Folder) -> None:
    """A folder holds one run. Another spec's results are not overwritten.

    Raises:
        UserError: the folder was begun with another spec; the message names the first difference.
    """
    written = folder.written_spec()
    if written is None:
        return
    there, here = flatten(_as_now(written["experiment"])), flatten(planned.experiment.as_dict())
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


def check_free(out: Path, jobs: Sequence[Job], stop: StopRequest) -> None:
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


@contextmanager
def held(keepers: Sequence[Keeper], stop: StopRequest, world: World) -> Iterator[dict[int, str]]:
    """Hold the folders; nobody else can write into them. Gives those that cannot be held, and why."""
    refused: dict[int, str] = {}
    # Several processes must agree on when to give up, and their clocks do not: they do not wait.
    until = -math.inf if world.shared else time.monotonic() + WAIT_FOR_LOCK
    with ExitStack() as holds:
        for number, keeper in enumerate(keepers):
            try:
                _hold(keeper.folder, stop, until)
                holds.callback(keeper.folder.release)
            except UserError as error:
                refused[number] = str(error)
        yield refused


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
