"""Any module as a backbone of one piece."""

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from acn_cl.backbones.backbone import Backbone
from acn_cl.errors import UserError


class WholeNetwork(Backbone):
    """Somebody's own network, whose depth axis is just the whole of it: depth 0, one sub-network.

    Args:
        module: images (B, C, H, W) -> features (B, d).
        image_size: height and width in pixels of the images it will see.
        channels: C.

    Raises:
        UserError: the module does not turn such images into one vector each.
    """

    def __init__(self, module: nn.Module, *, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.module = module
        self.depth = 0
        self.image_shape = (channels, *image_size)
        self.feature_size = self._probe()

    def forward(self, images: Tensor) -> Tensor:
        """Features of the network: images (B, C, H, W), float -> (B, d)."""
        return self.module(images)  # type: ignore[no-any-return]

    def forward_depths(self, images: Tensor) -> Tensor:
        """The same features with a depth axis of one: images (B, C, H, W), float -> (1, B, d)."""
        return self(images).unsqueeze(0)  # type: ignore[no-any-return]

    def truncate(self, depth: int) -> Self:
        """A copy; ``depth`` can only be 0."""
        if depth != 0:
            raise UserError(f"depth {depth}: a network of one piece has only sub-network 0, itself")
        return copy.deepcopy(self)

    def layer_of_parameters(self) -> dict[str, int]:
        """Name of each parameter -> 0: all of the network is one piece."""
        return dict.fromkeys((name for name, _ in self.named_parameters()), 0)

    def flops_by_depth(self, batch: int = 1) -> list[int]:
        """Operations of the whole network on ``batch`` images; see :meth:`Backbone.flops_by_depth`."""
        counter = FlopCounterMode(display=False)
        module = copy.deepcopy(self.module).cpu()
        with counter:
            _evaluate(module, torch.zeros(batch, *self.image_shape))
        return [counter.get_total_flops()]

    def _probe(self) -> int:
        """The feature size d, from a forward pass of two black images through a copy."""
        name = type(self.module).__name__
        try:
            output = _evaluate(copy.deepcopy(self.module), torch.zeros(2, *self.image_shape))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"backbone {name} fails on images of shape {self.image_shape}: {error}") from error
        if not isinstance(output, Tensor):
            raise UserError(f"backbone {name} returns {type(output).__name__}; it must return one tensor (B, d)")
        if output.ndim != 2 or len(output) != 2:
            raise UserError(
                f"backbone {name} turns a batch of 2 images into a tensor of shape {tuple(output.shape)}; it must be "
                f"(2, d), one vector an image: pool it, and leave out its classifier (timm: num_classes: 0)"
            )
        return output.shape[1]


def _evaluate(module: nn.Module, images: Tensor) -> object:
    """The output of ``module`` in evaluation mode, on the device and in the dtype of its parameters."""
    parameter = next(module.parameters(), images)
    with torch.no_grad():
        return module.eval()(images.to(parameter))
