"""Everything that a spec can name: one table a kind, by short name, imported only when it is used.

An :class:`Entry` says where the thing lives (a dotted string), what it is, and which keys it takes in a spec, so
that a spec is checked without importing torch. Anybody's own block, wiring, backbone, strategy or stream is named
by its dotted path, ``my_lab.methods:MyStrategy``; no decorator or entry point is needed.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from acn_cl.errors import UserError, suggest


class Settings(BaseModel):
    """Keys that one entry takes in a spec, beyond those of its section. Frozen; unknown keys are errors.

    A field whose YAML key is a Python keyword is spelt with an alias (``lambda_`` for ``lambda``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a table."""

    target: str
    """Dotted name of the class or function, ``package.module:name``."""
    about: str
    """One line for ``acn-cl list``."""
    settings: type[Settings] = Settings
    """What the spec may set for it."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that this name stands for (``ac_mixer``: ``block="mixer", wiring="acn"``)."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the spec's keys are here unless it says otherwise (``split-cifar100``: ``experiences=20``)."""


TABLES = {
    "backbones": "acn_cl.backbones.presets:PRESETS",
    "blocks": "acn_cl.backbones.presets:BLOCKS",
    "wirings": "acn_cl.backbones.presets:WIRINGS",
    "strategies": "acn_cl.strategies.table:STRATEGIES",
    "streams": "acn_cl.benchmarks.streams.table:STREAMS",
    "datasets": "acn_cl.benchmarks.datasets.table:DATASETS",
    "executors": "acn_cl.executors.table:EXECUTORS",
}


def is_dotted(name: str) -> bool:
    """Whether ``name`` is somebody's own, ``package.module:name``, rather than a short name of ours."""
    return ":" in name


def resolve(dotted: str) -> Any:
    """Import ``package.module:name`` and return the object. The current folder is last on the path.

    Raises:
        UserError: the module cannot be found, or has no such name.
    """
    module_name, _, name = dotted.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UserError(f"no module {module_name!r} for {dotted!r} (searched the environment and {here})") from None
        raise
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise UserError(f"{module_name} has no {part!r} (for {dotted!r}); {suggest(part, public)}")
        found = getattr(found, part)
    return found


def table(kind: str) -> Mapping[str, Any]:
    """The table of one kind (a key of ``TABLES``); importing it loads neither torch nor Avalanche."""
    return resolve(TABLES[kind])  # type: ignore[no-any-return]


def entry(kind: str, name: str) -> Entry:
    """The line of table ``kind`` called ``name``.

    Raises:
        UserError: there is none; the message gives the nearest name.
    """
    lines = table(kind)
    if name not in lines:
        one = "strategy" if kind == "strategies" else kind.removesuffix("s")
        raise UserError(f"unknown {one} {name!r}; {suggest(name, lines)}")
    return lines[name]  # type: ignore[no-any-return]
