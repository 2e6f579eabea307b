"""Comparisons that a recipe declares before its runs (``comparisons:``), as they stand in every run's ``spec.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acn_cl.errors import SpecError, suggest
from acn_cl.metrics import DIALECTS

MEASURES = (
    "average_accuracy",
    "average_forgetting",
    "learning_accuracy",
    "effective_depth",
    "accuracy_under_noise",
)
TESTS = ("paired-t", "sign-flip")
KEYS = ("axis", "values", "experiments", "measure", "dialect", "test", "primary")


@dataclass(frozen=True)
class Declared:
    """One comparison: two values of an axis, in every pair of experiments that differ in it alone, or two experiments.

    Attributes:
        axis: a matrix key, and
        values: two of its values; a whole section may be given by its name. Empty where ``experiments`` are named.
        experiments: two ids.
        measure: what is compared, as in ``results.csv``.
        dialect: of forgetting; "" for other measures.
        test: ``paired-t``, or ``sign-flip``, the exact permutation test.
        primary: whether it is the recipe's main claim.
    """

    axis: str = ""
    values: tuple[Any, ...] = ()
    experiments: tuple[str, ...] = ()
    measure: str = "average_forgetting"
    dialect: str = "from-learned"
    test: str = "paired-t"
    primary: bool = False

    def as_dict(self) -> dict[str, Any]:
        """In plain values, without what is empty; :func:`parse_comparisons` reads it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items() if value}


def parse_comparisons(value: object) -> tuple[Declared, ...]:
    """The list under ``comparisons:``.

    Raises:
        SpecError: it is not one; the path leads to the wrong key.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise SpecError(("comparisons",), "should be a list of comparisons, each a mapping of keys to values")
    found = tuple(_parse(index, item) for index, item in enumerate(value))
    if sum(one.primary for one in found) > 1:
        raise SpecError(("comparisons",), "more than one is primary; a recipe has one main claim")
    return found


def _parse(index: int, item: object) -> Declared:
    path = ("comparisons", index)
    if not isinstance(item, Mapping):
        raise SpecError(path, f"should be a mapping of keys to values, not {str(item)[:40]!r}")
    for key in item:
        if key not in KEYS:
            raise SpecError((*path, str(key)), f"there is no such key; {suggest(key, KEYS)}")
    if ("experiments" in item) == ("axis" in item or "values" in item):
        raise SpecError(path, "needs either axis and values, or experiments")
    pair = {key: _pair((*path, key), item[key]) for key in ("experiments", "values") if key in item}
    if "experiments" not in item and not (isinstance(item.get("axis"), str) and "values" in pair):
        raise SpecError(path, "needs an axis, which is a key of the matrix, and two of its values")
    if not all(isinstance(name, str) for name in pair.get("experiments", ())):
        raise SpecError((*path, "experiments"), "should be two ids of experiments")
    measure = _choice(path, item, "measure", MEASURES, "average_forgetting")
    if "dialect" in item and measure != "average_forgetting":
        raise SpecError((*path, "dialect"), f"{measure} has no dialects")
    dialect = _choice(path, item, "dialect", DIALECTS, "from-learned") if measure == "average_forgetting" else ""
    primary = item.get("primary", False)
    if not isinstance(primary, bool):
        raise SpecError((*path, "primary"), f"should be true or false, not {str(primary)[:40]!r}")
    test = _choice(path, item, "test", TESTS, "paired-t")
    return Declared(axis=item.get("axis", ""), measure=measure, dialect=dialect, test=test, primary=primary, **pair)


def _pair(path: tuple[str | int, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2 or value[0] == value[1]:
        raise SpecError(path, f"should be a list of two different ones, not {str(value)[:40]!r}")
    return tuple(value)


def _choice(path: tuple[str | int, ...], item: Mapping[str, Any], key: str, known: Sequence[str], default: str) -> str:
    value = item.get(key, default)
    if value not in known:
        raise SpecError((*path, key), f"{str(value)[:40]!r} is not one of its values; {suggest(value, known)}")
    return str(value)


def is_value(value: object, wanted: object) -> bool:
    """Whether an axis' value is the declared one: equal, or a whole section of that name."""
    if isinstance(value, Mapping) and isinstance(wanted, str):
        return value.get("name") == wanted
    return value == wanted
