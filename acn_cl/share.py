"""A share of a recipe's runs, for machines that know nothing of each other: ``--only 2/8``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from acn_cl.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Part ``number`` (from 1) of ``count``. The parts of a list are disjoint, and together they are all of it.

    >>> Share(2, 3).of("abcdefg")
    ['b', 'e']
    """

    number: int
    count: int

    def of(self, items: Sequence[T]) -> list[T]:
        """Every ``count``-th item: neighbours, which take about as long as each other, go to different parts."""
        return list(items[self.number - 1 :: self.count])


def parse_share(text: str) -> Share:
    """``"2/8"`` as ``Share(2, 8)``.

    Raises:
        UserError: that is not what it says.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        parts = max(1, int(match[2])) if match else 8
        raise UserError(f"--only {text}: a part of all parts is wanted, from 1/{parts} to {parts}/{parts}")
    return Share(int(match[1]), int(match[2]))
