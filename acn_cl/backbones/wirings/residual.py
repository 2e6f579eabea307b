"""Short skips around each layer."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.wirings.base import Wiring


class Residual(Wiring):
    """``z_i = z_{i-1} + f_i(z_{i-1})``, ``z_0 = x_0``; sub-network k returns ``z_k`` (He et al., arXiv 1512.03385).

    The sub-layers of a block keep their skips too, as in the usual Mixer and ViT. A block whose output already holds
    its input (``contains_input``) is not added to it again.
    """

    inner_skips: ClassVar[bool] = True
    direct_path: ClassVar = "skip"

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``z_0 … z_L``."""
        z = x0
        yield z
        for block in blocks:
            z = block(z) if block.contains_input else z + block(z)
            yield z
