"""From a strategy's name and keys to an Avalanche plug-in."""

import inspect
from typing import Any

from avalanche.core import BasePlugin

from acn_cl.errors import SpecError, suggest
from acn_cl.strategies.regulariser import Regulariser, RegulariserPlugin
from acn_cl.tables import entry, is_dotted, resolve


def build_strategy(name: str, **options: Any) -> BasePlugin[Any]:
    """Build the strategy called ``name``.

    Args:
        name: a line of the table of strategies, or the dotted path of anybody's own plug-in or regulariser.
        options: its keys (``lambda_`` for ``lambda``).

    Returns:
        A plug-in for any of Avalanche's supervised strategies.

    Raises:
        SpecError: the name or a key is unknown, or what it names is no plug-in.
    """
    maker = resolve(name) if is_dotted(name) else resolve(entry("strategies", name).target)
    _check_options(name, maker, options)
    made = maker(**options)
    if isinstance(made, Regulariser):
        return RegulariserPlugin(made)
    if not isinstance(made, BasePlugin):
        raise SpecError(
            ("strategy", "name"),
            f"{name} makes a {type(made).__name__}; an Avalanche plug-in or a Regulariser is wanted",
        )
    return made


def _check_options(name: str, maker: Any, options: dict[str, Any]) -> None:
    if not callable(maker):
        raise SpecError(("strategy", "name"), f"{name} is a {type(maker).__name__}, not a class or function")
    try:
        parameters = inspect.signature(maker).parameters
    except ValueError:  # a type written in C says nothing of its parameters
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in options:
        if key not in parameters:
            known = [p.rstrip("_") for p in parameters]
            raise SpecError(("strategy", key.rstrip("_")), f"{name} has no such key; {suggest(key.rstrip('_'), known)}")
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        if required and key not in options:
            raise SpecError(("strategy", key.rstrip("_")), f"{name} needs this key")
