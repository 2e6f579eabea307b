"""The random choices of a stream, all from the purpose ``class_order``: what a run sees, and in which order.

Each choice has its own child of that purpose's generator, so that none moves another: holding out a validation part
does not change the class order, and which images of a class are held out depends on the class alone, not on its place.
The test part is never drawn from.
"""

import numpy as np
import numpy.typing as npt

from acn_cl.seeding import Seeds

_PURPOSE = "class_order"
_VALIDATION, _FEW, _PIXELS = 0, 1, 2  # part of every published result: append, never reorder


def class_order(seeds: Seeds, classes: int) -> tuple[int, ...]:
    """A random order of the class ids."""
    return tuple(int(i) for i in seeds.generator(_PURPOSE).permutation(classes))


def validation(seeds: Seeds, original: int, images: int) -> npt.NDArray[np.int64]:
    """An order of a class's images; its first ones are held out for validation."""
    return seeds.generator(_PURPOSE, _VALIDATION, original).permutation(images)


def few(seeds: Seeds, original: int, images: int) -> npt.NDArray[np.int64]:
    """An order of a class's remaining images; its first ones are the few that are trained on."""
    return seeds.generator(_PURPOSE, _FEW, original).permutation(images)


def pixels(seeds: Seeds, experience: int) -> np.random.Generator:
    """The generator of an experience's permutation of pixels."""
    return seeds.generator(_PURPOSE, _PIXELS, experience)
