"""A perceptron on each token alone."""

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.blocks.perceptron import ChannelMLP
from acn_cl.backbones.norm import layer_norm


class Mlp(Block):
    """``f(x) = mlp(norm(x))`` on each token; tokens meet only when they are pooled, so pool by the mean.

    One sub-layer, so there is no inner skip to keep.

    Args:
        width: features of a token, d.
        tokens: N; any number will do.
        inner_skips: without effect here.
        hidden: hidden units.
    """

    def __init__(self, *, width: int, tokens: int, inner_skips: bool, hidden: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.mlp = ChannelMLP(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return self.mlp(self.norm(x))  # type: ignore[no-any-return]
