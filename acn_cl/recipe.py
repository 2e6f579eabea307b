"""A recipe: one spec, or a grid of them (``matrix:``), expanded into experiments with stable, readable ids."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acn_cl.assigning import TABLE_OF, assign, is_foreign
from acn_cl.errors import SpecError, UserError, suggest
from acn_cl.runs.declared import Declared, is_value, parse_comparisons
from acn_cl.search import SearchSection, Setting
from acn_cl.spec import Experiment, message_of
from acn_cl.specfile import KeyPath, SpecFile, SpecLoader, read_spec_file
from acn_cl.tables import is_dotted

RECIPES = "acn_cl.benchmarks.recipes"
NO_AXES = ("name", "about", "seeds", "matrix")


@dataclass(frozen=True)
class Planned:
    """One experiment of a recipe.

    Args:
        id: the name of its folder.
        axes: the matrix's keys and this experiment's values of them.
        experiment: what to run.
        comparisons: what the recipe declares that it will compare; kept in every run's ``spec.json``.
        search: how its setting was chosen, if it was; likewise.
    """

    id: str
    axes: dict[str, Any]
    experiment: Experiment
    comparisons: tuple[Declared, ...] = ()
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Trial:
    """One setting that a search tries.

    Args:
        setting: dotted keys and their values.
        judged: what is run to judge it: shorter, and without a look at the test part.
        planned: what is run if it is chosen.
    """

    setting: Setting
    judged: Planned
    planned: Planned


@dataclass(frozen=True)
class Search:
    """What is tried before one of the recipe's experiments is run.

    Args:
        section: how.
        trials: all of them; none of an adaptive search, which makes them one by one.
        make: a trial of a setting.
    """

    section: SearchSection
    trials: tuple[Trial, ...]
    make: Callable[[Setting], Trial]

    @property
    def size(self) -> int:
        """How many settings are tried."""
        return len(self.trials) or self.section.trials or 0


@dataclass(frozen=True)
class Recipe:
    """A named set of experiments; ``searches``: one for each, where the recipe asks for it."""

    name: str
    about: str
    planned: tuple[Planned, ...]
    searches: tuple[Search, ...] = ()


def recipe_files() -> dict[str, Path]:
    """The built-in recipes by name."""
    folder = Path(str(resources.files(RECIPES)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a built-in recipe, or of the YAML file called ``name``.

    Raises:
        UserError: there is neither.
    """
    built_in = recipe_files()
    path = Path(name)
    if name in built_in:
        return built_in[name]
    if not name.strip():
        raise UserError(f"a recipe or a YAML file is wanted; {suggest(name, built_in)}")
    if path.suffix in (".yaml", ".yml") or "/" in name or path.exists():
        return path
    raise UserError(f"no recipe and no file is called {name!r}; {suggest(name, built_in)}")


def load_recipe(name: str, overrides: Sequence[str] = (), seeds: str | None = None) -> Recipe:
    """Read a recipe, apply ``KEY=VALUE`` overrides, expand its matrix, and check every experiment.

    Args:
        name: a built-in recipe or the path of a YAML file.
        overrides: as on the command line, ``strategy.lambda=10``.
        seeds: ``0-4`` or ``0,2``, instead of the recipe's.

    Raises:
        UserError: anything is wrong; the message names the key, the file and the line.
    """
    path = find_recipe(name)
    file = read_spec_file(path)
    if path in recipe_files().values():
        file = SpecFile(path.name, file.data, file.lines)
    sets = dict(map(_parse_override, overrides)) | ({("seeds",): seeds} if seeds is not None else {})
    data = deepcopy(file.data)
    data.setdefault("name", _name_from(path))
    section = _search_section(data.pop("search", None), file, sets)
    matrix = _matrix(data.pop("matrix", {}), file)
    comparisons = _comparisons(data.pop("comparisons", []), matrix, file)
    plain = _override_axes(matrix, sets)
    planned = [
        replace(_planned(axes, data, plain, file, sets), comparisons=comparisons) for axes in _combinations(matrix)
    ]
    _check_distinct([p.id for p in planned], file)
    if not sets.keys() - {("seeds",)}:  # an override may take away what a comparison names
        _check_compared(comparisons, [p.id for p in planned], file)
    _check_used(plain, planned)
    searches = _searches(section, planned, data, plain, file, sets) if section else ()
    first = planned[0].experiment
    return Recipe(first.name, first.about, tuple(planned), searches)


def _name_from(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", path.stem).strip("-.") or "experiment"


def _parse_override(text: str) -> tuple[KeyPath, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text}: KEY=VALUE is wanted, such as strategy.lambda=10")
    try:
        return tuple(key.strip().split(".")), SpecLoader(value).get_single_data()
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--set {text}: the value is not YAML") from None


def _matrix(matrix: object, file: SpecFile) -> dict[str, list[Any]]:
    where = file.where(("matrix",))
    if not isinstance(matrix, Mapping):
        raise UserError(f"{where}: matrix: should be a mapping of keys to lists of values")
    for key, values in matrix.items():
        place = file.where(("matrix", key))
        _check_axis(str(key), f"{place}: matrix.{key}")
        if not isinstance(values, list) or not values:
            raise UserError(f"{place}: matrix.{key}: should be a list of at least one value")
    return {str(key): list(values) for key, values in matrix.items()}


def _check_axis(key: str, where: str) -> None:
    top = key.split(".")[0]
    axes = [k for k in Experiment.model_fields if k not in NO_AXES]
    if top not in axes:
        raise UserError(f"{where}: there is no such axis; {suggest(top, axes)}")


def _comparisons(value: object, matrix: Mapping[str, list[Any]], file: SpecFile) -> tuple[Declared, ...]:
    """The declared comparisons; those of an axis name one of the matrix, and two values that are there."""
    try:
        found = parse_comparisons(value)
        for index, one in enumerate(found):
            if one.axis and one.axis not in matrix:
                path = ("comparisons", index, "axis")
                raise SpecError(path, f"the matrix has no axis {one.axis!r}; {suggest(one.axis, matrix)}")
            for wanted in one.values:
                if not any(is_value(v, wanted) for v in matrix[one.axis]):
                    raise SpecError(("comparisons", index, "values"), f"{wanted!r} is no value of {one.axis}")
    except SpecError as error:
        raise UserError(f"{file.where(error.path)}: {error}") from None
    return found


def _check_compared(comparisons: Sequence[Declared], ids: Sequence[str], file: SpecFile) -> None:
    for index, one in enumerate(comparisons):
        for name in one.experiments:
            if name not in ids:
                where = file.where(("comparisons", index, "experiments"))
                raise UserError(f"{where}: comparisons: no experiment is called {name!r}; {suggest(name, ids)}")


def _override_axes(matrix: dict[str, list[Any]], sets: Mapping[KeyPath, Any]) -> dict[KeyPath, Any]:
    """Replace the axes that an override names (in place); what is left are overrides of plain keys."""
    plain: dict[KeyPath, Any] = {}
    for path, value in sets.items():
        axis = ".".join(map(str, path))
        if axis in matrix and isinstance(value, list):
            matrix[axis] = value
            continue
        for key in [k for k in matrix if k == axis or k.startswith(f"{axis}.")]:
            del matrix[key]
        plain[path] = value
    return plain


def _combinations(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def _planned(
    axes: dict[str, Any],
    data: Mapping[str, Any],
    plain: Mapping[KeyPath, Any],
    file: SpecFile,
    sets: Mapping[KeyPath, Any],
) -> Planned:
    values = deepcopy(dict(data))
    try:
        for axis, value in sorted(axes.items(), key=lambda item: _choosing_first(item[0])):
            assign(values, tuple(axis.split(".")), value)
        for path, value in sorted(plain.items(), key=lambda item: _choosing_first(".".join(map(str, item[0])))):
            if not is_foreign(values, path, axes):
                assign(values, path, value)
        experiment = Experiment.model_validate(values)
    except SpecError as error:
        raise UserError(f"{_place(error.path, axes, file, sets)}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if part not in ("EverySteps", "literal['experience']"))
        raise UserError(
            f"{_place(path, axes, file, sets)}: {'.'.join(map(str, path))}: {message_of(dict(first), _keys_at(path))}"
        ) from None
    return Planned("-".join(_label(*axis) for axis in axes.items()) or experiment.name, axes, experiment)


def _choosing_first(axis: str) -> int:
    """Sections and names before the keys that refine them."""
    return 0 if "." not in axis or axis.endswith(".name") else 1


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that the spec knows beside the last of ``path``."""
    model: Any = Experiment
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    keys = list(getattr(model, "model_fields", {}))
    return [*keys, "matrix", "comparisons"] if len(path) == 1 else keys


def _check_used(plain: Mapping[KeyPath, Any], planned: Iterable[Planned]) -> None:
    """An override that no value of the strategy axis knows is a mistake, not a no-op."""
    for path, value in plain.items():
        if path[0] != "strategy" or len(path) != 2:
            continue
        known = {key for p in planned for key in p.experiment.strategy.model_dump()}
        if path[1] not in known:
            raise UserError(
                f"--set strategy.{path[1]}={value}: no strategy of the matrix has it; {suggest(path[1], known)}"
            )


def _place(path: KeyPath, axes: Mapping[str, Any], file: SpecFile, sets: Mapping[KeyPath, Any]) -> str:
    """Where a wrong key was written: an override, the matrix, or a line of the file."""
    for key in sets:
        if path[: len(key)] == key or key[: len(path)] == path:
            option = "--seeds" if key == ("seeds",) else "--set"
            return f"{option} {'.'.join(map(str, key))}={sets[key]}" if option == "--set" else f"--seeds {sets[key]}"
    for axis in axes:
        key = tuple(axis.split("."))
        if path[: len(key)] == key:
            return file.where(("matrix", axis))
    return file.where(path)


def _label(axis: str, value: Any) -> str:
    """One axis' part of an experiment's id: ``ac_mixer``, ``depth5``, ``si-lambda2``."""
    if isinstance(value, Mapping):
        parts = [_text(value.get("name", "")), *(f"{key}{_text(v)}" for key, v in value.items() if key != "name")]
        return "-".join(part for part in parts if part)
    key = axis.rsplit(".", 1)[-1]
    return _text(value) if key == "name" or axis in TABLE_OF else f"{key}{_text(value)}"


def _text(value: Any) -> str:
    """A value as a part of a folder's name: ``0.5``, ``100`` (of 100.0), ``MyStrategy`` (of a dotted path)."""
    text = f"{value:g}" if isinstance(value, float) else str(value).rsplit(":", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._=+]+", "-", text).strip("-")


def _check_distinct(ids: Iterable[str], file: SpecFile) -> None:
    seen: set[str] = set()
    for identity in ids:
        if identity in seen:
            raise UserError(f"{file.where(('matrix',))}: matrix: two experiments would be called {identity!r}")
        seen.add(identity)


# Searches.


def _search_section(value: Any, file: SpecFile, sets: dict[KeyPath, Any]) -> SearchSection | None:
    """The recipe's ``search``, with the overrides of it, which are taken out of ``sets``."""
    for path in [path for path in sets if path[0] == "search"]:
        changed = sets.pop(path)
        match path[1:]:
            case ():
                value = changed
            case ("space", *key):
                value = {**(value or {})}
                value["space"] = {**value.get("space", {}), ".".join(map(str, key)): changed}
            case (key, *_):
                value = {**(value or {}), key: changed}
    if value is None:
        return None
    try:
        return SearchSection.model_validate(value)
    except SpecError as error:
        raise UserError(f"{file.where(error.path)}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ("search", *first["loc"])[: 3 if first["loc"][:1] == ("space",) else 2]  # the rest names types of ours
        known = list(SearchSection.model_fields)
        raise UserError(f"{file.where(path)}: {'.'.join(map(str, path))}: {message_of(dict(first), known)}") from None


def _searches(
    section: SearchSection,
    planned: Sequence[Planned],
    data: Mapping[str, Any],
    plain: Mapping[KeyPath, Any],
    file: SpecFile,
    sets: Mapping[KeyPath, Any],
) -> tuple[Search, ...]:
    for key in section.space:
        where = f"{file.where(('search', 'space', key))}: search.space.{key}"
        _check_axis(key, where)
        if any(axis == key or axis.startswith(f"{key}.") for axis in planned[0].axes):
            raise UserError(f"{where}: it is an axis of the matrix; it is either compared or chosen")
        if any(".".join(map(str, path)) == key for path in plain):
            raise UserError(f"--set {key}: the search chooses it; use --set search.space.{key}=[...]")
        if not any(_knows(one, key) for one in planned):
            raise UserError(f"{where}: no strategy of the recipe has it")
    inside = ("search", "space")
    at: dict[KeyPath, int] = {("matrix", key): n for (*start, key), n in file.lines.items() if tuple(start) == inside}
    pointing = SpecFile(file.source, file.data, {**file.lines, **at})  # so that a wrong value is looked for there
    searches = []
    for one in planned:
        if not one.experiment.stream.validation:
            raise UserError(
                f"{file.where(('search',))}: search: it chooses on the validation part, and {one.id} holds none out; "
                "set stream.validation, 0.1 say"
            )
        settings = [{key: v for key, v in s.items() if _knows(one, key)} for s in section.settings()]
        own = [setting for index, setting in enumerate(settings) if setting not in settings[:index]]

        def make(setting: Setting, one: Planned = one) -> Trial:
            known = {key: value for key, value in setting.items() if _knows(one, key)}
            full = _planned({**one.axes, **known}, data, plain, pointing, sets)
            chosen = replace(full, id=one.id, axes=one.axes, comparisons=one.comparisons)
            return Trial(known, _judged(full, section, file), chosen)

        trials = tuple(map(make, own))
        searches.append(Search(section, () if section.method == "adaptive" else trials, make))
    _check_distinct([trial.judged.id for search in searches for trial in search.trials], file)
    return tuple(searches)


def _knows(planned: Planned, key: str) -> bool:
    """Whether an experiment has the key; only those of a strategy may be another's."""
    strategy = planned.experiment.strategy
    section, _, rest = key.partition(".")
    return section != "strategy" or not rest or is_dotted(strategy.name) or rest in strategy.model_dump()


def _judged(full: Planned, section: SearchSection, file: SpecFile) -> Planned:
    """The run that judges a setting: the first experiences, on the validation part, without weights to keep."""
    values = full.experiment.as_dict()
    values |= {"seeds": section.seeds, "test_part": False, "corruptions": (), "loggers": ()}
    values["checkpoint"]["keep"] = "none"
    if section.evaluate_on != "whole":
        values["stream"]["stop_after"] = section.evaluate_on
    try:
        return replace(full, experiment=Experiment.model_validate(values))
    except (SpecError, ValidationError) as error:
        where = file.where(("search", "evaluate_on"))
        raise UserError(f"{where}: search.evaluate_on: {section.evaluate_on} is not possible: {error}") from None
