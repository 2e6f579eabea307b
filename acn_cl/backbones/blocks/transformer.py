"""The pre-LayerNorm Transformer encoder block."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.blocks.perceptron import ChannelMLP
from acn_cl.backbones.initialise import linear
from acn_cl.backbones.norm import layer_norm


class SelfAttention(nn.Module):
    """Multi-head self-attention, (B, N, width) -> (B, N, width); query, key and value in one map, in this order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = linear(width, 3 * width)
        self.output = linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        batch, tokens, width = x.shape
        split = self.query_key_value(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))  # type: ignore[no-any-return]


class Transformer(Block):
    """Self-attention, then an MLP, each after a LayerNorm (ViT: Dosovitskiy et al., arXiv 2010.11929).

    ``a = attention(norm(x))``; with inner skips ``f(x) = a + mlp(norm(x + a))``, so that ``x + f(x)`` is the usual
    encoder block; without them, as in AC-ViT and AC-BERT (arXiv 2506.09714), ``f(x) = mlp(norm(a))``, or with
    ``attention_skip`` ``f(x) = mlp(norm(x + a))``. No drop-out.

    Args:
        width: features of a token, d.
        tokens: N; any number will do.
        inner_skips: whether attention and MLP keep their skips.
        heads: attention heads; divides ``width``.
        mlp_ratio: hidden units of the MLP in widths.
        attention_skip: keep the skip around attention where ``inner_skips`` is off.
    """

    needs_positions: ClassVar[bool] = True

    def __init__(
        self, *, width: int, tokens: int, inner_skips: bool, heads: int, mlp_ratio: int, attention_skip: bool
    ) -> None:
        super().__init__()
        self.inner_skips = inner_skips
        self.attention_skip = attention_skip or inner_skips
        self.attention_norm = layer_norm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = layer_norm(width)
        self.mlp = ChannelMLP(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        a: Tensor = self.attention(self.attention_norm(x))
        branch: Tensor = self.mlp(self.mlp_norm(x + a if self.attention_skip else a))
        return a + branch if self.inner_skips else branch
