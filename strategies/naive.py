"""Naive fine-tuning: nothing is done against forgetting."""

from collections.abc import Mapping
from typing import Any, ClassVar

from acn_cl.strategies.plugin import StrategyPlugin


class Naive(StrategyPlugin):
    """Train on each experience as it comes.

    A step moves the backbone and the current experience's head; earlier heads have no gradient, and an optimiser
    leaves such parameters as they are (a gradient of zero would let AdamW decay them).
    """

    moves = "the current head"
    inert: ClassVar[Mapping[str, Any]] = {}
    in_parts = True
