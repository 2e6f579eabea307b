"""The Mixer block of the ACN authors' published code."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.blocks.mixer import Mixer
from acn_cl.backbones.initialise import linear
from acn_cl.backbones.norm import layer_norm


class ProjectedMixer(Block):
    """``LayerNorm(ReLU(W h + x))`` with ``h`` a Mixer's output, for both AC and residual wirings (arXiv 2506.09714).

    ``h = channel(norm(token(norm(x))))``, or with inner skips the usual Mixer's output. Differs from the paper's text,
    which has no W and no outer LayerNorm. The input is inside the output, so a residual wiring adds nothing, and no
    identity path leads through the block.

    Args: as for :class:`~acn_cl.backbones.blocks.mixer.Mixer`.
    """

    contains_input: ClassVar[bool] = True

    def __init__(self, *, width: int, tokens: int, inner_skips: bool, tokens_hidden: int, channels_hidden: int) -> None:
        super().__init__()
        self.mixer = Mixer(
            width=width,
            tokens=tokens,
            inner_skips=inner_skips,
            tokens_hidden=tokens_hidden,
            channels_hidden=channels_hidden,
        )
        self.project = linear(width, width, bias=False)
        self.norm = layer_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        h = self.mixer(x)
        if self.mixer.inner_skips:
            h = x + h
        return self.norm(F.relu(self.project(h) + x))  # type: ignore[no-any-return]
