"""The MLP-Mixer block."""

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.blocks.perceptron import ChannelMLP, TokenMLP
from acn_cl.backbones.norm import layer_norm


class Mixer(Block):
    """Token mixing, then channel mixing, each after a LayerNorm (Tolstikhin et al., arXiv 2105.01601).

    ``t = token(norm(x))``; with inner skips ``f(x) = t + channel(norm(x + t))``, so that ``x + f(x)`` is the usual
    Mixer; without them, as in the AC-Mixer of arXiv 2506.09714, ``f(x) = channel(norm(t))``.

    Args:
        width: features of a token, d.
        tokens: N, the class token included.
        inner_skips: whether each of the two MLPs keeps its skip.
        tokens_hidden: hidden units of the token MLP, D_S.
        channels_hidden: hidden units of the channel MLP, D_C.
    """

    def __init__(self, *, width: int, tokens: int, inner_skips: bool, tokens_hidden: int, channels_hidden: int) -> None:
        super().__init__()
        self.inner_skips = inner_skips
        self.token_norm = layer_norm(width)
        self.token_mlp = TokenMLP(tokens, tokens_hidden)
        self.channel_norm = layer_norm(width)
        self.channel_mlp = ChannelMLP(width, channels_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        t: Tensor = self.token_mlp(self.token_norm(x))
        if self.inner_skips:
            return t + self.channel_mlp(self.channel_norm(x + t))  # type: ignore[no-any-return]
        return self.channel_mlp(self.channel_norm(t))  # type: ignore[no-any-return]
