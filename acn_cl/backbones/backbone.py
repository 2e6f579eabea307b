"""The interface of every backbone: features of the whole network, and of each of its sub-networks."""

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images in, features out, with depth as an axis. No head, no pre-training.

    A backbone of depth L has L + 1 sub-networks: number k is the embedding, the first k layers, and the same final norm
    and pooling as all the others. Sub-network L is the backbone.
    """

    depth: int
    """Layers, L."""
    feature_size: int
    """Features of an image, d."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features of the whole network: images (B, C, H, W), float -> (B, d)."""

    @abstractmethod
    def forward_depths(self, images: Tensor) -> Tensor:
        """Features of sub-networks 0 … L in one pass: images (B, C, H, W), float -> (L + 1, B, d)."""

    @abstractmethod
    def truncate(self, depth: int) -> Self:
        """Sub-network ``depth`` (0 … L) as a backbone of its own, which shares no tensor with this one.

        Its features equal ``forward_depths(images)[depth]`` exactly (same batch, dtype and threads, not compiled).

        Raises:
            UserError: there is no such sub-network.
        """

    @abstractmethod
    def layer_of_parameters(self) -> dict[str, int]:
        """Name of each parameter -> its place in depth.

        0 is the embedding, 1 … L the layers (a block, and what its wiring learns for it), L + 1 the final norm.
        """

    @abstractmethod
    def flops_by_depth(self, batch: int = 1) -> list[int]:
        """Floating-point operations of one forward pass of sub-network 0 … L on ``batch`` images, L + 1 of them.

        Counts matrix products and attention (``torch.utils.flop_counter``), a multiply-add as two operations; what is
        left out (norms, activations, sums) is linear in the features. Touches neither parameters nor the device.
        """

    def parameters_by_depth(self) -> list[int]:
        """Number of parameters at each place of :meth:`layer_of_parameters`, L + 2 of them; they add up to all."""
        counts = [0] * (self.depth + 2)
        layer_of = self.layer_of_parameters()
        for name, parameter in self.named_parameters():
            counts[layer_of[name]] += parameter.numel()
        return counts
