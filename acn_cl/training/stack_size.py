"""How many runs fit into memory together."""

from acn_cl.spec import Experiment
from acn_cl.training.device import choose_device
from acn_cl.training.estimate import estimate
from acn_cl.training.placement import free_memory

SHARE = 0.7
"""Of the free memory: what :func:`estimate` leaves out, the strategy's state above all, takes the rest."""
MOST = 64
"""Runs in a stack; beyond that batched products gain nothing more, and a failure loses more."""


def widest_stack(experiment: Experiment) -> int:
    """Runs of this experiment in a stack at most, at least 1, from the memory that is free now.

    On the safe side: every run is counted with training images of its own. What is too many all the same is halved
    when memory runs out.
    """
    device = choose_device(experiment.device)
    return max(1, min(MOST, int(SHARE * free_memory(device) / estimate(experiment).memory)))
