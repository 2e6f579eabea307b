"""What every block is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Block(nn.Module, ABC):
    """One layer's function, (B, N, d) tokens -> (B, N, d): its branch ``f(x)``, never ``x + f(x)``.

    A block is built by ``cls(width=d, tokens=N, inner_skips=..., **its own settings)``. ``inner_skips`` is the wiring's
    word: whether the sub-layers of the block keep their own skips inside it (residual: yes; all others: no).
    """

    contains_input: ClassVar[bool] = False
    """Whether the output already holds the input (``W h + x``), so that a residual wiring does not add it again."""
    needs_positions: ClassVar[bool] = False
    """Whether the block cannot tell one token's place from another's, so that the embedding adds learned positions."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
