"""Long connections from every layer to the output: the auto-compressing network."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.wirings.base import Wiring


class Acn(Wiring):
    """``x_i = f_i(x_{i-1})`` as in a feedforward network; sub-network k returns ``y_k = x_0 + … + x_k``.

    Source: Dorovatas, Paraskevopoulos, Potamianos, Auto-Compressing Networks, arXiv 2506.09714.
    """

    direct_path: ClassVar = "sum"

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``y_0 … y_L``."""
        x = y = x0
        yield y
        for block in blocks:
            x = block(x)
            y = y + x
            yield y
