"""A backbone of blocks and a wiring."""

import copy
from collections.abc import Iterator, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from acn_cl.backbones.backbone import Backbone
from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.embedding import PatchEmbedding
from acn_cl.backbones.norm import layer_norm
from acn_cl.backbones.wirings.base import Wiring
from acn_cl.errors import UserError


class LayeredBackbone(Backbone):
    """Embedding, L blocks joined by a wiring, final LayerNorm, pooling.

    Args:
        embedding: images (B, C, H, W) -> tokens (B, N, d).
        blocks: the layers' functions, L of them.
        wiring: what each layer reads and what the network returns.
        width: features of a token, d.
        pool: ``"mean"`` of all tokens, or ``"cls"``, the first token.
    """

    def __init__(
        self,
        embedding: PatchEmbedding,
        blocks: Sequence[Block],
        wiring: Wiring,
        *,
        width: int,
        pool: Literal["mean", "cls"],
    ) -> None:
        super().__init__()
        self.depth = len(blocks)
        self.feature_size = width
        self.pool = pool
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)
        self.wiring = wiring
        self.norm = layer_norm(width)

    def states(self, images: Tensor) -> Iterator[Tensor]:
        """Tokens of sub-networks 0 … L, each (B, N, d), before norm and pooling; lazy, as the wiring's."""
        return self.wiring.states(self.embedding(images), self.blocks)  # type: ignore[arg-type]

    def features(self, state: Tensor) -> Tensor:
        """Norm and pooling, the same for every sub-network: (B, N, d) -> (B, d)."""
        if self.pool == "cls":
            return self.norm(state[:, 0])  # type: ignore[no-any-return]
        return self.norm(state).mean(1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Features of the whole network: images (B, C, H, W), float -> (B, d)."""
        for last in self.states(images):  # noqa: B007 - keeps one state alive at a time, which a list would not
            pass
        return self.features(last)

    def forward_depths(self, images: Tensor) -> Tensor:
        """Features of sub-networks 0 … L in one pass: images (B, C, H, W), float -> (L + 1, B, d)."""
        return torch.stack([self.features(state) for state in self.states(images)])

    def truncate(self, depth: int) -> Self:
        """Sub-network ``depth`` as a backbone of its own; see :meth:`Backbone.truncate`."""
        if not 0 <= depth <= self.depth:
            raise UserError(f"depth {depth}: this backbone has sub-networks 0 to {self.depth}")
        cut = copy.deepcopy(self)
        cut.depth = depth
        cut.blocks = cut.blocks[:depth]
        cut.wiring.layers = cut.wiring.layers[:depth]
        return cut

    def layer_of_parameters(self) -> dict[str, int]:
        """Name of each parameter -> its place in depth; see :meth:`Backbone.layer_of_parameters`."""
        return {name: self._layer_of(name) for name, _ in self.named_parameters()}

    def _layer_of(self, name: str) -> int:
        match name.split("."):
            case ["embedding", *_]:
                return 0
            case ["blocks", index, *_] | ["wiring", "layers", index, *_]:
                return int(index) + 1
            case _:
                return self.depth + 1

    def flops_by_depth(self, batch: int = 1) -> list[int]:
        """Operations of sub-networks 0 … L; see :meth:`Backbone.flops_by_depth`."""
        shadow = copy.deepcopy(self).to("meta")
        images = torch.empty(batch, *self.embedding.image_shape, device="meta")
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            # States are lazy: when number k arrives, the counter holds what sub-network k took.
            return [counter.get_total_flops() for _ in shadow.states(images)]
