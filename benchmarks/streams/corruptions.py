"""Corruptions of test images, the same for an image whenever and in whatever batch it is tested.

Noise is added to pixels in [0, 1] and the result clipped to [0, 1]; normalisation comes after. Each image's random
numbers depend on its data set, its part, its row there and the kind of noise, but not on the level: a stronger level is
the same noise, scaled (Gaussian) or with more pixels hit (salt and pepper), so that levels are compared on equal draws.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from acn_cl.benchmarks.datasets.arrays import Labels, Pixels
from acn_cl.benchmarks.streams.stream import Part
from acn_cl.errors import UserError, suggest

Noisy = npt.NDArray[np.float32]
"""Images with pixels in [0, 1], ``(N, C, H, W)``."""

PAPER_LEVELS = (
    "gaussian-0.1",
    "gaussian-0.2",
    "gaussian-0.4",
    "salt-pepper-0.01",
    "salt-pepper-0.05",
    "salt-pepper-0.1",
)
"""The levels of the ACN paper's table of noise robustness."""


@dataclass(frozen=True)
class Corruption(ABC):
    """A kind of noise at one level."""

    kind: ClassVar[str]
    level: float

    @property
    def name(self) -> str:
        """As in a spec and in ``accuracy.parquet``'s ``condition``: ``gaussian-0.1``."""
        return f"{self.kind}-{self.level:g}"

    def of(self, part: Part) -> Noisy:
        """All images of a part, corrupted: float32 ``(N, C, H, W)`` in [0, 1]."""
        return self(part.load(), part.indices, f"{part.dataset}/{part.split}")

    def __call__(self, images: Pixels, indices: Labels, source: str) -> Noisy:
        """Corrupt uint8 images ``(N, C, H, W)``.

        Args:
            images: pixels 0..255.
            indices: ``(N,)``, each image's row in ``source``: it decides the noise.
            source: data set and part, ``cifar100/test``.
        """
        pixels = images.astype(np.float32) / np.float32(255)
        digest = hashlib.blake2b(f"{source}/{self.kind}".encode(), digest_size=16).digest()
        key = np.frombuffer(digest, np.uint64)
        for image, index in zip(pixels, indices, strict=True):
            rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(index)]))
            self.corrupt(image, rng)
        return pixels.clip(0, 1, out=pixels)

    @abstractmethod
    def corrupt(self, image: Noisy, rng: np.random.Generator) -> None:
        """Change one image ``(C, H, W)`` in place; it is clipped afterwards."""


class Gaussian(Corruption):
    """Normal noise of standard deviation ``level``, independent for every pixel and channel."""

    kind = "gaussian"

    def corrupt(self, image: Noisy, rng: np.random.Generator) -> None:
        image += np.float32(self.level) * rng.standard_normal(image.shape, np.float32)


class SaltPepper(Corruption):
    """A share ``level`` of the pixels, in expectation, turned black or white, either with probability one half.

    A pixel is a place in the image: all its channels turn together.
    """

    kind = "salt-pepper"

    def corrupt(self, image: Noisy, rng: np.random.Generator) -> None:
        hit = rng.random(image.shape[1:], np.float32)
        white = rng.random(image.shape[1:], np.float32) < 0.5
        image[:, hit < self.level] = white[hit < self.level]


KINDS: dict[str, type[Corruption]] = {kind.kind: kind for kind in (Gaussian, SaltPepper)}
_NAME = re.compile(r"(?P<kind>[a-z-]+)-(?P<level>\d+(\.\d+)?)")


def corruption(name: str) -> Corruption:
    """The corruption called ``name``, kind and level: ``gaussian-0.1``, ``salt-pepper-0.05``.

    Raises:
        UserError: no such kind, or a level outside (0, 1].
    """
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] not in KINDS:
        near = suggest(name.rstrip("0123456789.").rstrip("-"), KINDS)
        raise UserError(f"unknown corruption {name!r}: a kind and a level, as in gaussian-0.1; {near}")
    level = float(match["level"])
    if not 0 < level <= 1:
        raise UserError(f"corruption {name!r}: the level is more than 0 and at most 1, not {level:g}")
    return KINDS[match["kind"]](level)
