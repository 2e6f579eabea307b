"""What can be said of a stream before its data is opened: whether its keys fit, its shapes, its plan. No torch."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from acn_cl.benchmarks.datasets.load import dataset_info
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.benchmarks.streams import draws
from acn_cl.benchmarks.streams.plans import Plan, Task
from acn_cl.errors import SpecError, UserError
from acn_cl.seeding import Seeds
from acn_cl.spec import StreamSection, message_of
from acn_cl.tables import entry, is_dotted, resolve

ONLINE_BATCH = 10
"""Images a step of online streams, as is usual (Lopez-Paz and Ranzato, arXiv:1706.08840)."""

DEFAULT_LABELS = {
    "task-incremental": "per-experience",
    "class-incremental": "seen-order",
    "domain-incremental": "per-experience",
}
_FITTING_LABELS = {
    "task-incremental": ("per-experience", "seen-order", "global"),
    "class-incremental": ("seen-order", "global"),
    "domain-incremental": ("per-experience",),
}


def check_stream(section: Mapping[str, Any]) -> dict[str, Any]:
    """The ``stream`` section of a spec with every key filled in; checking it again changes nothing.

    A key that is absent or null takes the stream's default.

    Args:
        section: the keys that are set; ``name`` is needed. A dotted name's keys are checked for their types alone.

    Raises:
        UserError: a key is unknown or of the wrong type, or keys do not go together (:class:`SpecError` names the key).
    """
    given = {key: value for key, value in section.items() if value is not None}
    own = is_dotted(str(given.get("name", "")))
    line = None if own else entry("streams", str(given.get("name", "")))
    common = {key: value for key, value in given.items() if key in StreamSection.model_fields}
    extra = {key: value for key, value in given.items() if key not in StreamSection.model_fields}
    resolved = _checked(StreamSection, {**(line.defaults if line else {}), **common})
    if line is None:
        return {**resolved, **extra}
    resolved |= _checked(line.settings, extra)
    resolved["labels"] = resolved["labels"] or DEFAULT_LABELS[resolved["scenario"]]
    _check_order(resolved["class_order"], dataset_of(resolved))
    _check_scenario(resolved, plan_of(resolved))
    return resolved


def image_shape(section: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the stream's images.

    Raises:
        UserError: the section is wrong, or names somebody's own stream, of which this is known only once it is built.
    """
    return dataset_of(_known(section)).image_shape


def classes_per_experience(section: Mapping[str, Any]) -> list[int]:
    """How many classes each experience has.

    Raises:
        UserError: as :func:`image_shape`.
    """
    return [len(piece.classes) for piece in plan_of(_known(section))]


def training_defaults(section: Mapping[str, Any]) -> dict[str, Any]:
    """What the stream asks of the spec's other keys unless they are set: one epoch, small batches if it is online."""
    online = not is_dotted(section["name"]) and entry("streams", section["name"]).fixed.get("one_pass", False)
    return {"epochs": 1, "batch_size": ONLINE_BATCH} if online else {}


def plan_of(section: Mapping[str, Any], seeds: Seeds | None = None) -> Plan:
    """The plan of a resolved section. Without ``seeds``, for the seed 0: the sizes are the same for every seed."""
    seeds = Seeds(0) if seeds is None else seeds
    info = dataset_of(section)
    order: tuple[int, ...]
    match section["class_order"]:
        case "seeded":
            order = draws.class_order(seeds, info.classes)
        case "fixed":
            order = tuple(range(info.classes))
        case listed:
            order = tuple(listed)
    line = entry("streams", section["name"])
    plan: Plan = resolve(line.target)(
        Task(info, order, seeds), **{key: value for key, value in section.items() if key != "name"}
    )
    return plan


def dataset_of(section: Mapping[str, Any]) -> DatasetInfo:
    """The data set of a resolved section."""
    fixed = entry("streams", section["name"]).fixed
    if "dataset" in fixed:
        return dataset_info(fixed["dataset"])
    from acn_cl.benchmarks.datasets.own import own_folder

    return own_folder(section["folder"], section["size"])


def _known(section: Mapping[str, Any]) -> dict[str, Any]:
    if is_dotted(section["name"]):
        raise UserError(f"what {section['name']} holds is known only once it is built")
    return check_stream(section)


def _checked(model: type[BaseModel], keys: Mapping[str, Any]) -> dict[str, Any]:
    """The model's fields with their defaults; the first of pydantic's errors as one line of ours."""
    try:
        checked = model(**keys)
    except ValidationError as error:
        first = error.errors()[0]
        known = [*model.model_fields, *StreamSection.model_fields]
        raise SpecError(tuple(first["loc"]), message_of(dict(first), known)) from None
    return {key: getattr(checked, key) for key in model.model_fields}


def _check_order(order: Any, info: DatasetInfo) -> None:
    if isinstance(order, str) or sorted(order) == list(range(info.classes)):
        return
    missing = sorted(set(range(info.classes)) - set(order))
    twice = sorted({original for original in order if list(order).count(original) > 1})
    strange = sorted(set(order) - set(range(info.classes)))
    faults = {"missing": missing, "more than once": twice, f"no class of {info.name}": strange}
    what = "; ".join(f"{_few(ids)} {fault}" for fault, ids in faults.items() if ids)
    raise SpecError(("class_order",), f"not a permutation of 0..{info.classes - 1}: {what}")


def _few(ids: list[int]) -> str:
    return ", ".join(str(i) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _check_scenario(section: Mapping[str, Any], plan: Plan) -> None:
    """Refuse label spaces and plans that make no sense in the scenario."""
    scenario, labels = section["scenario"], section["labels"]
    if labels not in _FITTING_LABELS[scenario]:
        right = " or ".join(_FITTING_LABELS[scenario])
        raise SpecError(("labels",), f"{labels!r} does not fit {scenario}, whose classes share one head; use {right}")
    classes = [original for piece in plan for original in piece.classes]
    if scenario == "class-incremental" and len(set(classes)) < len(classes):
        raise SpecError(
            ("scenario",), f"{section['name']} has the same classes in every experience; use domain-incremental"
        )
    if scenario == "domain-incremental" and len({len(piece.classes) for piece in plan}) > 1:
        raise SpecError(("first",), "domain-incremental needs the same labels in every experience; leave it out")
    stop_after = section["stop_after"]
    if stop_after is not None and stop_after > len(plan):
        raise SpecError(("stop_after",), f"the stream has {len(plan)} experiences, not {stop_after}")
