"""The caller's global random state is not ours to move."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Run a block with Python's, numpy's and torch's global generators seeded, and put them back afterwards.

    Initialisation and other people's strategies draw from the global generators; everything of ours draws from
    generators of its own.

    Args:
        seed: at least 0; numpy takes its lower 32 bits.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 (this is the global state that we keep)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
