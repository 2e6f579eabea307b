"""One run seed, four independent streams of random numbers.

Each purpose draws from its own stream (numpy ``SeedSequence`` with a spawn key), and each (purpose, experience, epoch)
from its own child of that stream, so that a position in a run is one integer: nothing has to be replayed on resume, and
no run draws from another's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

PURPOSES = ("initialisation", "class_order", "data_order", "augmentation")
# The index in this tuple is part of every published result: append, never reorder.


@dataclass(frozen=True)
class Seeds:
    """The random streams of one run.

    Args:
        run: the run's seed, non-negative.
        pins: purposes whose seed is fixed whatever the run's is (vary initialisation, keep class order).
    """

    run: int
    pins: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def sequence(self, purpose: str, *position: int) -> np.random.SeedSequence:
        """The seed sequence of ``purpose`` at ``position`` (say, experience and epoch, both from 0)."""
        entropy = self.pins.get(purpose, self.run)
        return np.random.SeedSequence(entropy, spawn_key=(PURPOSES.index(purpose), *position))

    def generator(self, purpose: str, *position: int) -> np.random.Generator:
        """A numpy generator for ``purpose`` at ``position``."""
        return np.random.default_rng(self.sequence(purpose, *position))

    def integer(self, purpose: str, *position: int) -> int:
        """A 63-bit integer for ``torch.Generator.manual_seed``."""
        return int(self.sequence(purpose, *position).generate_state(1, np.uint64)[0] >> np.uint64(1))
