"""The auto-compressing network, trained by its direct gradient only."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.wirings.base import Wiring


class AcnDirectGradient(Wiring):
    """The same numbers forward as :class:`~acn_cl.backbones.wirings.acn.Acn`; backward, no gradient between layers.

    Each layer and the embedding learn only through their own connection to the output: the ablation "DG only" of
    arXiv 2506.09714. With CLS pooling no patch has such a connection before the first block mixes tokens, so
    the patch embedding stays as it was initialised: pool by the mean.
    """

    direct_path: ClassVar = "sum"

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``y_0 … y_L``."""
        x = y = x0
        yield y
        for block in blocks:
            x = block(x.detach())
            y = y + x
            yield y
