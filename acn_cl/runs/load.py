"""Run folders read back: every run, its accuracy matrix, and what could not be read. Nothing is dropped silently.

Only JSON and parquet are read: nothing is unpickled, no name that a run mentions is imported.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from acn_cl.errors import UserError, suggest
from acn_cl.runs.folder import Status, read_status
from acn_cl.runs.matrices import Matrix, read_matrices
from acn_cl.runs.reading import Damaged, read_json, read_table
from acn_cl.runs.schema import PARTS, TABLES, check_version
from acn_cl.spec import flatten, is_inert, with_later_keys

Floats = NDArray[np.float64]
KINDS = {str: "text", int: "an integer", dict: "an object", list: "a list"}
REQUIRED: dict[str, type] = {"id": str, "seed": int}
OPTIONAL: dict[str, type] = {
    "experiment": dict,
    "axes": dict,
    "versions": dict,
    "parameters": int,
    "comparisons": list,
    "peak_memory": int,
    "flops_by_depth": list,
    "data_checksum": str,
}
"""Keys of ``spec.json`` that are read, and what they must be; an optional one may also be null."""
MOST_CELLS = 50_000_000
"""Of one run's accuracies: a thousand experiences at fifty depths, in 400 MB. A larger number is a damaged one."""
LEAST = {"trained": -1, "step": -1, "evaluated": 0, "depth": 0, "samples": 0}
CONFUSED = ["trained", "evaluated", "predicted"]
ONE_ROW_EACH = ["trained", "step", "evaluated", "part", "condition", "depth"]


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    Attributes:
        path: the folder, ``RUNS_DIR/<experiment>/seed-<n>``.
        experiment: id of the experiment; the runs that bear it differ in their seed only.
        seed: the run's seed.
        spec: ``spec.json`` as it is.
        status: what the run was doing last; ``died`` when it says running but nobody holds its lock.
        accuracy, layers, timing, confusion: the tidy tables of :mod:`acn_cl.runs.schema`; empty where not written.
        checksum: SHA-256 over the run's data as :func:`checksum_of` has it; of somebody's CSV, that of the file.
        imported: whether it is somebody's accuracy matrix, of which nothing else is known.
    """

    path: Path
    experiment: str
    seed: int
    spec: Mapping[str, Any]
    status: Status
    accuracy: pd.DataFrame = field(repr=False)
    layers: pd.DataFrame = field(repr=False)
    timing: pd.DataFrame = field(repr=False)
    confusion: pd.DataFrame = field(repr=False)
    checksum: str = ""
    imported: bool = False

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The resolved spec of the experiment: stream, backbone, strategy …, with keys that have joined since."""
        settings: Mapping[str, Any] = self.spec.get("experiment") or {}
        return with_later_keys(settings) if settings else settings

    @property
    def scenario(self) -> str:
        """``task-incremental``, ``class-incremental`` or ``domain-incremental``; empty where the spec does not say."""
        return str(self.settings.get("stream", {}).get("scenario") or "")

    @cached_property
    def by_depth(self) -> Floats:
        """Accuracy after each experience, by depth: ``(T, T, L+1)``, NaN where not evaluated.

        T is the number of experiences learned so far. Test part, clean images.
        """
        rows = self._test
        rows = rows[rows["step"] == -1]
        learned = int(rows["trained"].max()) + 1 if len(rows) else 0
        return _cube(rows[(rows["trained"] >= 0) & (rows["evaluated"] < learned)], learned, learned)

    @cached_property
    def initial_by_depth(self) -> Floats:
        """Accuracy before any training, ``(T, L+1)``; NaN where not evaluated."""
        rows = self._test
        rows = rows[(rows["trained"] == -1) & (rows["step"] == -1) & (rows["evaluated"] < len(self.by_depth))]
        at_start: Floats = _cube(rows.assign(trained=0), 1, len(self.by_depth), depths=self.by_depth.shape[2])[0]
        return at_start

    @property
    def test_samples(self) -> int:
        """Test images of all experiences learned, as evaluated after the last."""
        return int(self.samples.sum())

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Test images of each experience learned, ``(T,)``, as evaluated after the last; 0 where it was not."""
        rows = self._test
        learned = len(self.by_depth)
        rows = rows[(rows["step"] == -1) & (rows["trained"] == learned - 1) & (rows["depth"] == 0)]
        by_experience = rows.set_index("evaluated")["samples"].reindex(range(learned), fill_value=0)
        return by_experience.to_numpy(dtype=np.int64)

    @property
    def data_checksum(self) -> str:
        """Of the data set's images and labels; empty where the run did not record one."""
        return str(self.spec.get("data_checksum") or "")

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """Confusion between experiences, ``(T, T, T)``; empty, ``(0, 0, 0)``, where the run has none.

        ``answers[t, j, k]``: how many test images of experience j got an answer among the classes of experience k after
        training on experience t; of the whole network.
        """
        rows = self.confusion
        learned = len(self.by_depth) if len(rows) else 0
        rows = rows[rows[CONFUSED].max(axis=1) < learned]
        counts = np.zeros((learned, learned, learned), dtype=np.int64)
        counts[tuple(rows[name] for name in CONFUSED)] = rows["count"]
        return counts

    @property
    def conditions(self) -> list[str]:
        """Names of the corruptions that the learned network was tested under, in the spec's order."""
        return [name for name in self.accuracy["condition"].unique() if name != "clean"]

    def final(self, condition: str = "clean") -> Floats:
        """Accuracy after the last experience under a condition, ``(T, L+1)``; NaN where not evaluated."""
        learned = len(self.by_depth)
        rows = self.accuracy[(self.accuracy["part"] == "test") & (self.accuracy["condition"] == condition)]
        rows = rows[(rows["trained"] == learned - 1) & (rows["step"] == -1) & (rows["evaluated"] < learned)]
        at_end: Floats = _cube(rows.assign(trained=0), 1, learned, depths=self.by_depth.shape[2])[0]
        return at_end

    def trace(self, depth: int | None = None) -> tuple[Floats, NDArray[np.int64]]:
        """Every evaluation in order: accuracy ``(N, T)``, and the experience being learned at each, ``(N,)``.

        Moments within an experience (``evaluate_every: {steps: n}``) stand between the ends of experiences.
        """
        by_depth, learning = self._trace_by_depth
        return by_depth[..., self._depth(depth)], learning

    @cached_property
    def _trace_by_depth(self) -> tuple[Floats, NDArray[np.int64]]:
        rows = self._test
        rows = rows[(rows["trained"] >= 0) | (rows["step"] >= 0)]
        within = (rows["step"] >= 0).astype(int)
        rows = rows.assign(learning=rows["trained"] + within, end=1 - within).sort_values(["learning", "end", "step"])
        moment = rows.groupby(["learning", "end", "step"], sort=True).ngroup().to_numpy()
        learned = len(self.by_depth)
        known = ((rows["evaluated"] < learned) & (rows["learning"] < learned)).to_numpy()
        learning = rows.loc[known].groupby(moment[known])["learning"].first().to_numpy(dtype=np.int64)
        cube = _cube(rows.loc[known].assign(trained=moment[known]), len(learning), learned)
        return cube, learning

    @cached_property
    def _test(self) -> pd.DataFrame:
        return self.accuracy[(self.accuracy["part"] == "test") & (self.accuracy["condition"] == "clean")]

    def _depth(self, depth: int | None) -> int:
        deepest = int(self.by_depth.shape[2]) - 1
        if depth is None:
            return deepest
        if not 0 <= depth <= deepest:
            raise UserError(f"{self.path}: no depth {depth}; this run has 0 to {deepest}")
        return depth


@dataclass(frozen=True)
class Unreadable:
    """A run folder that could not be read, and why, in one line."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class Runs:
    """Run folders, merged; sorted by experiment, then seed.

    Attributes:
        runs: those that could be read, finished or not.
        unreadable: those that could not.
    """

    runs: tuple[Run, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def experiments(self) -> list[str]:
        """Ids, in natural order."""
        return sorted({run.experiment for run in self.runs}, key=natural)

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """All runs' accuracy rows, ``experiment`` and ``seed`` in front."""
        return self._together("accuracy")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """All runs' rows of layer quantities, ``experiment`` and ``seed`` in front."""
        return self._together("layers")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """All runs' timing rows, ``experiment`` and ``seed`` in front."""
        return self._together("timing")

    def run(self, experiment: str, seed: int) -> Run:
        """One run.

        Raises:
            UserError: there is none.
        """
        if (experiment, seed) not in self._by_name:
            if experiment not in self.experiments:
                raise UserError(f"no experiment {experiment!r} in these runs; {suggest(experiment, self.experiments)}")
            seeds = sorted(seed for name, seed in self._by_name if name == experiment)
            raise UserError(f"no seed {seed} of {experiment!r} in these runs; known: {', '.join(map(str, seeds))}")
        return self._by_name[experiment, seed]

    def finished(self, experiment: str) -> list[Run]:
        """The runs of one experiment that are done, by seed: the only ones that a mean is taken over."""
        return [run for run in self.runs if run.experiment == experiment and run.status.state == "done"]

    def unfinished(self) -> list[Run]:
        """Failed, died and running runs: what a report lists and does not average."""
        return [run for run in self.runs if run.status.state != "done"]

    def matrix(self, experiment: str, seed: int, depth: int | None = None) -> Floats:
        """The accuracy matrix R, ``(T, T)``.

        ``R[t, j]`` is the accuracy (0..1) on experience j after training on t; NaN where it was not evaluated.

        Args:
            experiment: its id.
            seed: the run's seed.
            depth: the sub-network that answers, 0..L; None: the whole network.
        """
        run = self.run(experiment, seed)
        return run.by_depth[..., run._depth(depth)]

    def initial(self, experiment: str, seed: int, depth: int | None = None) -> Floats:
        """Accuracy before any training, ``(T,)``; NaN where it was not measured."""
        run = self.run(experiment, seed)
        return run.initial_by_depth[..., run._depth(depth)]

    def by_depth(self, experiment: str, seed: int) -> Floats:
        """R by depth, ``(T, T, L+1)``."""
        return self.run(experiment, seed).by_depth

    def beside(self, run: Run, strategy: str) -> Run | None:
        """The finished run of the same seed, alike in everything but its strategy, which is ``strategy``."""
        found = self._finished.get((strategy, run.seed, _but_its_strategy(run)))
        return None if found is run else found

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """All runs' counts of answers by experience, ``experiment`` and ``seed`` in front."""
        return self._together("confusion")

    @cached_property
    def _finished(self) -> dict[tuple[str, int, str], Run]:
        done = [run for run in self.runs if run.status.state == "done" and not run.imported]
        return {(_strategy(run), run.seed, _but_its_strategy(run)): run for run in done}

    @cached_property
    def _by_name(self) -> dict[tuple[str, int], Run]:
        return {(run.experiment, run.seed): run for run in self.runs}

    def _together(self, table: str) -> pd.DataFrame:
        frames = [
            frame.assign(experiment=run.experiment, seed=run.seed)
            for run in self.runs
            if len(frame := getattr(run, table))
        ]
        columns = ["experiment", "seed", *TABLES[table].names]
        return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def load_runs(*folders: Path | str) -> Runs:
    """Read the runs in ``folders``, merged: run stores, experiments' folders or single runs.

    A ``.csv`` file among them holds accuracy matrices of somebody else: see :mod:`acn_cl.runs.matrices`. A run that
    cannot be read is listed in ``.unreadable`` and the others are still there. The same run found twice counts once if
    the copies are identical.

    Raises:
        UserError: a folder does not exist or holds no run; two different runs bear the same experiment and seed; the
            seeds of one experiment were run with different settings.
    """
    if not folders:
        raise UserError("no folder of runs was given")
    files = sorted({Path(f).resolve() for f in folders if _is_csv(Path(f))})
    paths = sorted({path for folder in folders if not _is_csv(Path(folder)) for path in _run_folders(Path(folder))})
    runs = [run for file in files for run in _imported(file)]
    unreadable: list[Unreadable] = []
    for path in paths:
        try:
            runs.append(read_run(path))
        except UserError as error:
            unreadable.append(Unreadable(path, str(error)))
    return Runs(tuple(_merged(runs)), tuple(unreadable))


def read_run(path: Path) -> Run:
    """Read one run folder.

    Raises:
        UserError: a file is missing, damaged or not of this version; the message names the file and the column.
    """
    spec = _spec(path / "spec.json")
    status = read_status(path)
    tables = {name: _table(path / f"{name}.parquet") for name in TABLES}
    _check_accuracy(path / "accuracy.parquet", tables["accuracy"], done=status.state == "done")
    _check_confusion(path / "confusion.parquet", tables["confusion"])
    own = (path, spec["id"], spec["seed"], spec, status)
    return Run(*own, *_in_order(tables), checksum=checksum_of(path))


def checksum_of(path: Path) -> str:
    """SHA-256 of a run's data: of the lines that ``sha256sum`` prints for its spec and tables, those that are there.

    The same as ``sha256sum accuracy.parquet confusion.parquet layers.parquet spec.json timing.parquet | sha256sum`` in
    the folder; older runs have no ``confusion.parquet``.
    """
    names = sorted([*(f"{name}.parquet" for name in TABLES), "spec.json"])
    files = [path / name for name in names if (path / name).exists()]
    lines = [f"{_sha256(file)}  {file.name}\n" for file in files]
    return sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def natural(text: str) -> tuple[list[tuple[int, str]], str]:
    """What to sort by, so that numbers stand in their order.

    >>> sorted(["depth15", "depth5"], key=natural)
    ['depth5', 'depth15']
    """
    parts = re.split(r"0*(\d+)", text)  # every second one is a number, of which the longer is the larger
    return [(len(part) * (place % 2), part) for place, part in enumerate(parts)], text


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.is_dir()


def _imported(file: Path) -> list[Run]:
    """Somebody's accuracy matrices as runs of which only those are known."""
    matrices, checksum = read_matrices(file)
    return [_as_run(file, matrix, checksum) for matrix in matrices]


def _as_run(file: Path, matrix: Matrix, checksum: str) -> Run:
    spec = {"id": matrix.experiment, "seed": matrix.seed, "experiment": {}, "axes": {}, "notes": matrix.notes}
    tables = {name: pd.DataFrame(schema.empty_table().to_pandas()) for name, schema in TABLES.items()}
    tables["accuracy"] = matrix.accuracy
    own = (file, matrix.experiment, matrix.seed, spec, Status("done"))
    return Run(*own, *_in_order(tables), checksum=checksum, imported=True)


def _in_order(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return tables["accuracy"], tables["layers"], tables["timing"], tables["confusion"]


def _run_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give a folder of runs")
    candidates = [folder, *folder.glob("seed-*"), *folder.glob("*/seed-*")]
    found = [path for path in candidates if _is_run(path)]
    if not found:
        raise UserError(f"{folder}: no runs in it (expected <experiment>/seed-<n>/spec.json)")
    return [path.resolve() for path in found]


def _is_run(path: Path) -> bool:
    return path.is_dir() and (path.name.startswith("seed-") or (path / "spec.json").exists())


def _spec(path: Path) -> dict[str, Any]:
    try:
        spec = read_json(path)
    except Damaged as damage:
        raise UserError(f"{path}: {damage}") from None
    check_version(spec.get("schema_version"), path)
    for key, kind in {**REQUIRED, **{key: kind for key, kind in OPTIONAL.items() if spec.get(key) is not None}}.items():
        _check_kind(path, key, spec.get(key), kind)
    _check_kind(path, "experiment.stream", (spec.get("experiment") or {}).get("stream", {}), dict)
    return spec


def _check_kind(path: Path, key: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and abs(value) >= 2**63):
        raise UserError(f"{path}: {key!r} is {repr(value)[:40]}; expected {KINDS[kind]}")


def _table(path: Path) -> pd.DataFrame:
    schema = TABLES[path.stem]
    if not path.exists():
        return pd.DataFrame(schema.empty_table().to_pandas())
    try:
        return read_table(path, schema)
    except Damaged as damage:
        raise UserError(f"{path}: {damage}") from None


def _check_accuracy(path: Path, table: pd.DataFrame, *, done: bool) -> None:
    if done and table.empty:
        raise UserError(f"{path}: {'no rows' if path.exists() else 'missing'}, though the run says it is done")
    if not table["part"].isin(PARTS).all():
        raise UserError(f"{path}: column 'part' has values other than {' and '.join(PARTS)}")
    if not table["accuracy"].between(0, 1).all():
        raise UserError(f"{path}: column 'accuracy' has values outside 0..1")
    for name, least in LEAST.items():
        if (table[name] < least).any():
            raise UserError(f"{path}: column {name!r} has values below {least}")
    learned, depths = (int(table[name].max()) + 1 if len(table) else 0 for name in ("trained", "depth"))
    moments = len(table[["trained", "step"]].drop_duplicates())
    if max(learned, moments) * max(learned, 1) * depths > MOST_CELLS:
        raise UserError(f"{path}: damaged ({learned} experiences at {depths} depths)")
    _check_once(path, table, ONE_ROW_EACH)


def _check_once(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    repeated = table.duplicated(columns)
    if repeated.any():
        row = table[repeated].iloc[0][columns].to_dict()
        raise UserError(f"{path}: two rows for {', '.join(f'{key} {value}' for key, value in row.items())}")


def _check_confusion(path: Path, table: pd.DataFrame) -> None:
    for name in (*CONFUSED, "count"):
        if (table[name] < 0).any():
            raise UserError(f"{path}: column {name!r} has values below 0")
    experiences = int(table[CONFUSED].to_numpy().max()) + 1 if len(table) else 0
    if experiences**3 > MOST_CELLS:
        raise UserError(f"{path}: damaged ({experiences} experiences)")
    _check_once(path, table, CONFUSED)


def _merged(runs: Sequence[Run]) -> list[Run]:
    by_name: dict[tuple[str, int], Run] = {}
    first: dict[str, Run] = {}
    for run in runs:
        other = by_name.setdefault((run.experiment, run.seed), run)
        if not _same(run, other):
            raise UserError(
                f"{run.experiment!r} seed {run.seed} is in two folders and differs: {other.path}, {run.path}"
            )
        sibling = first.setdefault(run.experiment, run)
        if sibling.imported != run.imported:
            raise UserError(f"{run.experiment!r} is two things: {sibling.path}, {run.path}; rename the file")
        if changed := _changed(sibling.settings, run.settings):
            raise UserError(
                f"{run.experiment!r} was run with different settings ({'; '.join(changed)}) in {sibling.path} and "
                f"{run.path}; report them apart or name them apart"
            )
    _check_shapes([run for run in by_name.values() if run.status.state == "done"])
    return [by_name[name] for name in sorted(by_name, key=lambda name: (natural(name[0]), name[1]))]


def _check_shapes(finished: Sequence[Run]) -> None:
    first: dict[str, Run] = {}
    for run in finished:
        sibling = first.setdefault(run.experiment, run)
        if run.by_depth.shape != sibling.by_depth.shape:
            (learned, _, depths), (others, _, their_depths) = run.by_depth.shape, sibling.by_depth.shape
            raise UserError(
                f"{run.experiment!r} learned {others} experiences at {their_depths} depths in {sibling.path} and "
                f"{learned} at {depths} in {run.path}; report them apart or name them apart"
            )


def _same(run: Run, other: Run) -> bool:
    return run is other or (
        run.settings == other.settings
        and run.status.state == other.status.state
        and all(getattr(run, table).equals(getattr(other, table)) for table in TABLES)
    )


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """``key: value in a, value in b`` for each setting that differs and should not."""
    a, b = flatten(a), flatten(b)
    keys = (key for key in {**a, **b} if not is_inert(key))
    return [f"{key}: {a.get(key)}, {b.get(key)}" for key in keys if a.get(key) != b.get(key)]


def _strategy(run: Run) -> str:
    section = run.settings.get("strategy") or {}
    return str(section.get("name", "") if isinstance(section, Mapping) else section)


def _but_its_strategy(run: Run) -> str:
    """All that says what was run, less the strategy, as text that is the same for equal settings."""
    settings = {key: value for key, value in flatten(run.settings).items() if not is_inert(key)}
    return json.dumps({k: v for k, v in sorted(settings.items()) if k.split(".")[0] != "strategy"}, sort_keys=True)


def _cube(rows: pd.DataFrame, moments: int, experiences: int, depths: int | None = None) -> Floats:
    """Rows as an array (trained, evaluated, depth), NaN where there is none."""
    deepest = int(rows["depth"].max()) + 1 if len(rows) else 1
    cube = np.full((moments, experiences, depths or deepest), np.nan)
    cube[rows["trained"].to_numpy(), rows["evaluated"].to_numpy(), rows["depth"].to_numpy()] = rows["accuracy"]
    return cube
