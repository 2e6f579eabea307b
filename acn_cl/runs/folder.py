"""One run's folder: who holds it, in what state it is, and what is written into it."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from acn_cl.errors import UserError
from acn_cl.runs.files import remove_parts, write_json, write_rows
from acn_cl.runs.reading import Damaged, read_json
from acn_cl.runs.schema import SCHEMA_VERSION, STATES, TABLES, check_version

LOCK = "run.lock"
STATUS = "status.json"
SPEC = "spec.json"
HOLDER = "holder.json"
"""Who holds the lock: there from the first moment, when ``status.json`` is not, or is an earlier process's."""


class Held(UserError):
    """Another process holds a run's folder."""


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
        UserError: ``status.json`` is missing, damaged, or of a later version.
    """
    path = folder / STATUS
    try:
        raw = read_json(path)
    except Damaged as damage:
        raise UserError(f"{path}: damaged ({damage})") from None
    check_version(raw.get("schema_version"), path)
    state, progress, error = raw.get("state"), raw.get("progress") or {}, raw.get("error")
    if state not in STATES:
        raise UserError(f"{path}: damaged (state {str(state)[:40]!r})")
    if not isinstance(progress, dict) or not all(type(count) is int for count in progress.values()):
        raise UserError(f"{path}: damaged (progress {str(progress)[:40]!r})")
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
            Held: another process holds it.
            UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            write_json(self.path / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
            remove_parts(self.path)
            remove_parts(self.path / "checkpoints")
        except Timeout:
            raise Held(f"{self.path} is being written by another process{self._holder()}") from None
        except OSError as error:
            self._lock.release()
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def _holder(self) -> str:
        with suppress(Damaged):
            holder = read_json(self.path / HOLDER)
            return f" (pid {holder.get('pid')} on {holder.get('host')})"
        return ""

    def release(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            (self.path / HOLDER).unlink(missing_ok=True)
        self._lock.release()

    def is_begun(self) -> bool:
        """Whether anybody has ever held it."""
        return (self.path / LOCK).exists()

    def is_done(self) -> bool:
        """Whether a finished run lies here."""
        return (self.path / STATUS).exists() and read_status(self.path).state == "done"

    def written_spec(self) -> dict[str, Any] | None:
        """The ``spec.json`` of an earlier start, if there is one.

        Raises:
            UserError: it is damaged or of a later version.
        """
        path = self.path / SPEC
        if not path.exists():
            return None
        try:
            spec = read_json(path)
        except Damaged as damage:
            raise UserError(f"{path}: damaged ({damage})") from None
        check_version(spec.get("schema_version"), path)
        if not isinstance(spec.get("experiment"), dict):
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
                "schema_version": SCHEMA_VERSION,
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

    def write_results(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write every table, whole: rows by the name of the table."""
        for name, schema in TABLES.items():
            write_rows(self.path / f"{name}.parquet", schema, rows[name])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
