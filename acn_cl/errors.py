"""Errors that the user can mend, and the one place that words "did you mean"."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The input is wrong: one line that says what, where, and the nearest right value. Exit code 2.

    Line breaks and control characters, which names from a user's file may hold, are shown as spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join("".join(c if c.isprintable() else " " for c in message).split()))


class SpecError(UserError):
    """A key of a spec is wrong. ``path`` leads to it, ``("strategy", "lambda")``."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(f"{dotted(path)}: {message}" if path else message)


class Ended(Exception):
    """A run was ended by what only one of its processes knows of, so that they cannot go on together. Exit code 3."""


def dotted(path: tuple[str | int, ...]) -> str:
    """``("strategy", "lambda")`` as ``strategy.lambda``."""
    return ".".join(str(part) for part in path)


def suggest(wrong: object, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest of ``known``, or all of them when none is near.

    >>> suggest("nave", ["naive", "si"])
    "did you mean 'naive'?"
    """
    names = sorted(known)
    near = get_close_matches(str(wrong).lower(), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
