"""What a spec may set of a backbone: one class for what all share, one for each block and wiring. No torch here.

A class that knows of an impossible combination says so in ``check``; a wrong type or range is pydantic's business.
"""

from typing import Literal

from pydantic import Field

from acn_cl.errors import SpecError
from acn_cl.tables import Settings


class BackboneSettings(Settings):
    """The keys that every pair of block and wiring takes."""

    depth: int = Field(default=16, ge=1, strict=True, description="layers L")
    width: int = Field(default=128, ge=1, strict=True, description="features of a token, d")
    patch: int = Field(default=4, ge=1, strict=True, description="side of a square patch, in pixels; divides the image")
    pool: Literal["mean", "cls"] = Field(
        default="mean", description="what the head reads: the mean of all tokens, or a class token put before them"
    )


class BlockSettings(Settings):
    """The keys that one block takes."""

    def check(self, common: BackboneSettings) -> None:
        """Refuse what cannot work together with the backbone's common keys, by a :class:`SpecError`."""


class MixerSettings(BlockSettings):
    """Sizes of the two MLPs of a Mixer block; the defaults are those of arXiv 2506.09714."""

    tokens_hidden: int = Field(default=64, ge=1, strict=True, description="hidden units of the token MLP, D_S")
    channels_hidden: int = Field(default=512, ge=1, strict=True, description="hidden units of the channel MLP, D_C")


class TransformerSettings(BlockSettings):
    """Sizes of an encoder block."""

    heads: int = Field(default=4, ge=1, strict=True, description="attention heads; divides the width")
    mlp_ratio: int = Field(default=4, ge=1, strict=True, description="hidden units of the MLP, in widths")
    attention_skip: bool = Field(
        default=False,
        strict=True,
        description="keep the skip around attention where the wiring drops inner skips; residual keeps it anyway",
    )

    def check(self, common: BackboneSettings) -> None:
        """Refuse heads that do not divide the width."""
        if common.width % self.heads:
            near = nearest_divisors(self.heads, common.width)
            raise SpecError(
                ("backbone", "heads"), f"{self.heads} does not divide the width {common.width}; nearest: {near}"
            )


class MlpSettings(BlockSettings):
    """Size of a token-wise MLP."""

    hidden: int = Field(default=512, ge=1, strict=True, description="hidden units")

    def check(self, common: BackboneSettings) -> None:
        """Refuse the class token: no token reads another, so it would never see the image."""
        if common.pool == "cls":
            raise SpecError(
                ("backbone", "pool"),
                "'cls' with the block 'mlp' would never see the image, because an MLP on single tokens carries nothing "
                "to the class token; use 'mean'",
            )


class HighwaySettings(Settings):
    """The gate of a highway layer."""

    gate_bias: float = Field(
        default=-2.0, lt=0, description="the gate's bias at the start; below 0, so that layers begin by carrying"
    )


def nearest_divisors(wrong: int, *sizes: int) -> str:
    """The common divisors of ``sizes`` just below and just above ``wrong``, worded for an error message.

    >>> nearest_divisors(5, 32, 32)
    '4 or 8'
    """
    divisors = [n for n in range(1, min(sizes) + 1) if all(size % n == 0 for size in sizes)]
    below = [n for n in divisors if n < wrong][-1:]
    above = [n for n in divisors if n > wrong][:1]
    return " or ".join(str(n) for n in below + above)
