"""What every wiring is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn

from acn_cl.backbones.blocks.base import Block


class Wiring(nn.Module, ABC):
    """Which earlier outputs each layer reads, and what the network returns.

    A wiring is built by ``cls(depth=L, width=d, **its own settings)`` and told the blocks at each call: it knows no
    kind of block. What it learns for layer i (a gate, a projection) lies in ``layers[i - 1]``; a wiring that learns
    nothing leaves ``layers`` empty. That is all that truncation and counting need to know.
    """

    inner_skips: ClassVar[bool] = False
    """Whether the sub-layers of a block keep their own skips."""
    direct_path: ClassVar[Literal["sum", "skip"] | None] = None
    """How a layer's output reaches the network's output untouched: by its own connection into a final sum, by an
    unbroken chain of skips, or not at all. :mod:`acn_cl.depth.gradients` splits gradients where there is one."""

    def __init__(self, *, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()

    @abstractmethod
    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """The outputs of sub-networks 0 … L, in this order, each (B, N, d), before norm, pooling and head.

        Lazy: the state of sub-network k costs the first k blocks and no more.

        Args:
            x0: the embedded images, (B, N, d).
            blocks: the layers' functions, L of them.
        """
