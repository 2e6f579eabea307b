"""Plain layers, one after the other."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.wirings.base import Wiring


class FeedForward(Wiring):
    """``x_i = f_i(x_{i-1})``; sub-network k returns ``x_k`` (FFN in arXiv 2506.09714)."""

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``x_0 … x_L``."""
        x = x0
        yield x
        for block in blocks:
            x = block(x)
            yield x
