"""Setting one dotted key of a spec that is still plain data, and which keys another name takes over."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from acn_cl.errors import SpecError
from acn_cl.spec import Experiment
from acn_cl.specfile import KeyPath
from acn_cl.tables import entry, is_dotted, table

TABLE_OF = {"stream": "streams", "backbone": "backbones", "strategy": "strategies"}


def assign(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set one dotted key. Choosing another ``X.name`` drops the keys that do not mean the same under both names."""
    section, *rest = path
    if not rest:
        values[str(section)] = {"name": value} if section in TABLE_OF and isinstance(value, str) else deepcopy(value)
        return
    inner = values.setdefault(str(section), {})
    if isinstance(inner, str) and section in TABLE_OF:
        inner = values[str(section)] = {"name": inner}
    if not isinstance(inner, dict):
        raise SpecError((section,), f"should be a mapping of keys to values, not {inner!r}")
    if rest == ["name"] and inner.get("name", value) != value:
        kept = _common_keys(str(section), inner["name"], value)
        for key in [key for key in inner if key not in kept]:
            del inner[key]
    if len(rest) == 1:
        inner[str(rest[0])] = value
    else:
        assign(inner, tuple(rest), value)


def _common_keys(section: str, old: object, new: object) -> set[str]:
    """Keys that mean the same under both names: the section's own, and those that one class declares for both.

    ``memory`` is that of every strategy with a memory, and ``tokens_hidden`` that of every Mixer; each strategy's
    ``lambda`` is its own.
    """
    field = Experiment.model_fields.get(section)
    keys = set(getattr(field.annotation, "model_fields", {})) if field else set()
    before, after = _declared(section, old), _declared(section, new)
    sizes = {"depth", "width", "patch", "pool"} if section == "backbone" else set()
    return keys | sizes | {key for key, where in before.items() if after.get(key) is where}


def _declared(section: str, name: object) -> dict[str, type]:
    """Each key that a name of ours takes -> the class that declares it; of somebody's own nothing is known."""
    lines = table(TABLE_OF[section]) if section in TABLE_OF else {}
    line = lines.get(name) if isinstance(name, str) else None
    if line is None:
        return {}
    parts = [line.settings]
    if section == "backbone":  # a preset stands for lines of two other tables
        parts += [entry(f"{part}s", line.fixed[part]).settings for part in ("block", "wiring")]
    return {field.alias or key: _owner(part, key) for part in parts for key, field in part.model_fields.items()}


def _owner(settings: type, key: str) -> type:
    return next(cls for cls in settings.__mro__ if key in vars(cls).get("__annotations__", {}))


def is_foreign(values: Mapping[str, Any], path: KeyPath, axes: Mapping[str, Any]) -> bool:
    """Whether an override is meant for other values of an axis of whole sections (``strategy.lambda`` beside naive)."""
    section = str(path[0])
    if (
        section != "strategy"
        or len(path) != 2
        or path[1] == "name"
        or "strategy" not in {a.split(".")[0] for a in axes}
    ):
        return False
    chosen = values.get("strategy", {})
    name = chosen if isinstance(chosen, str) else chosen.get("name", "naive")
    if is_dotted(name):
        return False
    fields = entry("strategies", name).settings.model_fields
    return path[1] not in {field.alias or key for key, field in fields.items()}
