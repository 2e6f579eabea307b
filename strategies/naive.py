"""Naive fine-tuning: nothing is done against forgetting."""

from avalanche.core import SupervisedPlugin


class Naive(SupervisedPlugin):
    """Train on each experience as it comes.

    A step moves the backbone and the current experience's head; earlier heads have no gradient, and an optimiser
    leaves such parameters as they are (a gradient of zero would let AdamW decay them).
    """
