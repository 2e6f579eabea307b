"""Every layer reads all earlier ones."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.initialise import linear
from acn_cl.backbones.wirings.base import Wiring


class DenseNet(Wiring):
    """``x_i = f_i(P_i [x_0, …, x_{i-1}])`` with a learned d x (i·d) matrix ``P_i``; sub-network k returns ``x_k``.

    Source: the DenseNet of arXiv 2506.09714, after Huang et al., arXiv 1608.06993, whose layers widen instead of being
    projected back.

    Args:
        depth: layers L. Memory for activations grows with L².
        width: features of a token, d.
    """

    def __init__(self, *, depth: int, width: int) -> None:
        super().__init__(depth=depth, width=width)
        self.layers.extend(linear(i * width, width, bias=False) for i in range(1, depth + 1))

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``x_0 … x_L``."""
        outputs = [x0]
        yield x0
        for project, block in zip(self.layers, blocks, strict=True):
            outputs.append(block(project(torch.cat(outputs, dim=-1))))
            yield outputs[-1]
