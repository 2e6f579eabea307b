"""Learned gates between carrying and transforming."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.initialise import linear
from acn_cl.backbones.wirings.base import Wiring


class Highway(Wiring):
    """``h_i = (1 - C)·h_{i-1} + C·f_i(h_{i-1})`` with the gate ``C = σ(W_i h_{i-1} + b_i)``.

    One gate a token and feature. Sub-network k returns ``h_k``.
    Source: Srivastava, Greff, Schmidhuber, arXiv 1505.00387.

    Args:
        depth: layers L.
        width: features of a token, d.
        gate_bias: ``b`` at the start; below 0, so that layers begin by carrying.
    """

    def __init__(self, *, depth: int, width: int, gate_bias: float) -> None:
        super().__init__(depth=depth, width=width)
        for _ in range(depth):
            gate = linear(width, width)
            nn.init.constant_(gate.bias, gate_bias)
            self.layers.append(gate)

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``h_0 … h_L``."""
        h = x0
        yield h
        for gate, block in zip(self.layers, blocks, strict=True):
            # h + C·(f - h), which is the formula with one product less.
            h = h + torch.sigmoid(gate(h)) * (block(h) - h)
            yield h
