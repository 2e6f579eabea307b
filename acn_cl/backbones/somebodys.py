"""Calling somebody's own class or function, named by a dotted path, with the keys of a spec."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from acn_cl.errors import UserError, suggest
from acn_cl.tables import resolve


def accepted(dotted: str, keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that the callable at ``dotted`` takes as keyword arguments."""
    named, takes_any = _parameters(dotted)
    return [key for key in keys if takes_any or key in named]


def call(dotted: str, options: Mapping[str, Any]) -> Any:
    """What the callable at ``dotted`` makes of ``options``.

    Raises:
        UserError: it is not callable, takes no such option, needs one that is missing, or refuses what it got.
    """
    named, _ = _parameters(dotted)
    unknown = set(options) - set(accepted(dotted, options))
    if unknown:
        key = min(unknown)
        raise UserError(f"{dotted} takes no {key!r}; {suggest(key, named)}")
    missing = [key for key, is_needed in named.items() if is_needed and key not in options]
    if missing:
        raise UserError(f"{dotted} needs {missing[0]!r}, which the backbone's section does not give")
    try:
        return resolve(dotted)(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{dotted} fails with {error}") from error


def _parameters(dotted: str) -> tuple[dict[str, bool], bool]:
    """The callable's keyword arguments (name -> has no default), and whether it takes any other as well."""
    target = resolve(dotted)
    if not callable(target):
        raise UserError(f"{dotted} is of type {type(target).__name__}, not a class or function that makes a module")
    parameters = inspect.signature(target).parameters.values()
    by_name = {p.name: p.default is p.empty for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return by_name, any(p.kind is p.VAR_KEYWORD for p in parameters)
