"""One run's folder: who holds it, in what state it is, and what is written into it."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from acn_cl.errors import UserError
from acn_cl.runs.files import write_json, write_rows
from acn_cl.runs.schema import ACCURACY, LAYERS, STATES, TIMING

LOCK = "run.lock"
STATUS = "status.json"
SPEC = "spec.json"


@dataclass(frozen=True)
class Status:
    """What ``status.json`` says, held against the lock.

    Args:
        state: running, done, failed, or died: it says running and nobody holds the lock.
        progress: experience, experiences, epoch, epochs; counted from 0, how many are behind it.
        error: why it failed.
        raw: the whole file.
    """

    state: str
    progress: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


def read_status(folder: Path) -> Status:
    """The state of the run in ``folder``.

    Raises:
        UserError: ``status.json`` is missing or damaged.
    """
    path = folder / STATUS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        state, progress, error = raw["state"], raw.get("progress") or {}, raw.get("error")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {folder} a run?") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged (not the JSON of a run's status)") from None
    if state not in STATES or not isinstance(progress, dict):
        raise UserError(f"{path}: damaged (state {state!r})")
    if state == "running" and not is_held(folder):
        state = "died"
    return Status(state, progress, None if error is None else str(error), raw)


def is_held(folder: Path) -> bool:
    """Whether a living process works on the run in ``folder``."""
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    if not (folder / LOCK).exists():
        return False
    try:
        with lock:
            return False
    except Timeout:
        return True
    except OSError:  # read-only: nobody can be writing here through this mount
        return False


class RunFolder:
    """A run's folder, held by this process from :meth:`hold` to :meth:`release`.

    Args:
        path: ``RUNS_DIR/<experiment>/seed-<n>``.
        experiment: the experiment's id.
        seed: the run's seed.
    """

    def __init__(self, path: Path, experiment: str, seed: int) -> None:
        self.path, self.experiment, self.seed = path, experiment, seed
        self._lock = FileLock(path / LOCK, timeout=0, thread_local=False)
        self._started = _now()

    def hold(self) -> None:
        """Make the folder if need be and lock it.

        Raises:
            UserError: it cannot be written, or another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{self.path} is being written by another process{self._holder()}") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def _holder(self) -> str:
        with suppress(UserError):
            raw = read_status(self.path).raw
            return f" (pid {raw.get('pid')} on {raw.get('host')})"
        return ""

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def is_done(self) -> bool:
        """Whether a finished run lies here."""
        return (self.path / STATUS).exists() and read_status(self.path).state == "done"

    def written_spec(self) -> dict[str, Any] | None:
        """The ``spec.json`` of an earlier start, if there is one.

        Raises:
            UserError: it is damaged.
        """
        path = self.path / SPEC
        if not path.exists():
            return None
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{path}: damaged (not JSON)") from None
        if not isinstance(spec, dict) or not isinstance(spec.get("experiment"), dict):
            raise UserError(f"{path}: damaged (no experiment in it)")
        return spec

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Write ``spec.json``."""
        write_json(self.path / SPEC, spec)

    def write_status(
        self, state: str, progress: dict[str, int], error: str | None = None, traceback: str | None = None
    ) -> None:
        """Write ``status.json``; ``traceback`` only where a fault of ours ended the run."""
        write_json(
            self.path / STATUS,
            {
                "state": state,
                "experiment": self.experiment,
                "seed": self.seed,
                "progress": progress,
                "error": error,
                **({"traceback": traceback} if traceback else {}),
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "started": self._started,
                "updated": _now(),
            },
        )

    def write_results(
        self, accuracy: list[dict[str, Any]], layers: list[dict[str, Any]], timing: list[dict[str, Any]]
    ) -> None:
        """Write the three tables, whole."""
        write_rows(self.path / "accuracy.parquet", ACCURACY, accuracy)
        write_rows(self.path / "layers.parquet", LAYERS, layers)
        write_rows(self.path / "timing.parquet", TIMING, timing)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
