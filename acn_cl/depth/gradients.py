"""Gradients by layer: their size, and the paths by which they arrive."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional as F

from acn_cl.backbones.backbone import Backbone
from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.layered import LayeredBackbone
from acn_cl.backbones.wirings.base import Wiring
from acn_cl.depth.probing import Head
from acn_cl.errors import UserError


def norm_by_layer(tensors: Mapping[str, Tensor], layer_of: Mapping[str, int]) -> Tensor:
    """Euclidean norm of all that belongs to a layer: (L + 2,), in float32 or better.

    Works on anything that is shaped as the parameters are (their gradients, an importance, a drift), and under
    ``torch.func.vmap`` on a stack of runs.

    Args:
        tensors: by parameter name.
        layer_of: parameter name -> 0 … L + 1, from :meth:`Backbone.layer_of_parameters`.
    """
    squares: list[Tensor | float] = [0.0] * (max(layer_of.values()) + 1)
    for name, tensor in tensors.items():
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        squares[layer_of[name]] = squares[layer_of[name]] + wide.square().sum()
    return torch.stack([torch.as_tensor(square) for square in squares]).sqrt()


@dataclass(frozen=True)
class GradientParts:
    """The loss gradient at the output of the embedding (0) and of each layer (1 … L), and its two parts.

    Each part is measured by itself; that they add up to ``full`` is a property of the network, not of this code.
    """

    direct: list[Tensor]
    """DG, L + 1 of (B, N, d): what comes straight from the network's output."""
    mediated: list[Tensor]
    """NG, L + 1 of (B, N, d): what comes through later blocks."""
    full: list[Tensor]
    """FG, L + 1 of (B, N, d): all that arrives."""

    def direct_share(self) -> Tensor:
        """``‖DG‖ / ‖FG‖`` at 0 … L, (L + 1,): the share that arXiv 2506.09714 plots over training."""
        return _norms(self.direct) / _norms(self.full)


def gradient_parts(backbone: Backbone, head: Head, images: Tensor, labels: Tensor) -> GradientParts:
    """Direct, network-mediated and full gradient of the cross-entropy at every layer of a real backbone.

    Leaves the parameters' ``.grad`` as they are.

    Args:
        backbone: one of blocks and a wiring, used in the mode that it is in.
        head: features (B, d) -> logits (B, C).
        images: (B, C, H, W), float.
        labels: (B,), class indices.

    Raises:
        UserError: the backbone has no direct path; see :func:`split_gradient`.
    """
    if not isinstance(backbone, LayeredBackbone):
        raise UserError("direct and mediated gradients need a backbone of blocks and a wiring, not one of one piece")
    return split_gradient(
        backbone.wiring,
        _blocks(backbone),
        backbone.embedding(images),
        lambda state: F.cross_entropy(head(backbone.features(state)), labels),
    )


def split_gradient(
    wiring: Wiring, blocks: Sequence[Block], x0: Tensor, loss: Callable[[Tensor], Tensor]
) -> GradientParts:
    """Direct, network-mediated and full gradient of ``loss`` at the embedding and at each layer's output.

    A layer's output ``x_i`` (its branch ``f_i``) reaches the network's output ``y`` untouched, by its own connection
    (ACN) or by the chain of skips (residual), and also through later blocks:

    - DG is ``∂loss/∂y``, the same for all layers: the "1" of the backward term in arXiv 2506.09714.
    - NG is what arrives through the inputs of blocks. In an ACN only block i + 1 reads ``x_i``. In a residual network
      all later blocks do, for the skips carry ``x_i`` on to them, and NG is the sum over their inputs.
    - FG is the gradient at ``x_i`` itself.

    Args:
        wiring: one with a ``direct_path``.
        blocks: L blocks; for a residual wiring without ``contains_input``.
        x0: the embedded images, (B, N, d).
        loss: the network's output (B, N, d) -> a scalar.

    Raises:
        UserError: the wiring has no direct path, or the blocks close it.
    """
    _require_direct_path(wiring, blocks)
    outputs = [x0 if x0.requires_grad else x0.detach().requires_grad_()]
    inputs: list[Tensor] = []

    def tap_input(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        # A view is a node of its own in the graph: its gradient is what comes through this block alone.
        inputs.append(arguments[0].view_as(arguments[0]))
        return (inputs[-1],)

    def tap_output(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        outputs.append(output)

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(tap_input).remove)
            hooks.callback(block.register_forward_hook(tap_output).remove)
        *_, y = wiring.states(outputs[0], blocks)

    through, full, (direct,) = _gradients(loss(y), inputs, outputs, [y])
    nothing = torch.zeros_like(direct)
    if wiring.direct_path == "sum":
        mediated = [*through, nothing]
    else:
        mediated = [nothing]
        for gradient in reversed(through):
            mediated.insert(0, mediated[0] + gradient)
    return GradientParts(direct=[direct] * len(full), mediated=mediated, full=full)


def has_direct_path(backbone: Backbone) -> bool:
    """Whether :func:`gradient_parts` and :func:`direct_and_full` are defined for it."""
    return isinstance(backbone, LayeredBackbone) and not _refusal(backbone.wiring, _blocks(backbone))


def direct_and_full(backbone: LayeredBackbone, head: Head, images: Tensor, labels: Tensor) -> Tensor:
    """Squared norms of DG and of FG at the embedding and each layer's output, (2, L + 1), in float64.

    Of the summed cross-entropy of the images, so that those of several batches add up:
    ``(direct / full).sqrt()`` is :meth:`GradientParts.direct_share` of all of them. FG is the gradient by something
    that is added to a layer's output, DG by something that is added to the network's, before norm and pooling. Without
    hooks and without ``backward``, so it works under ``torch.func.vmap`` and leaves the parameters' ``.grad`` alone.

    Args:
        backbone: for which :func:`has_direct_path` holds; used in the mode that it is in.
        head: features (B, d) -> logits (B, C).
        images: (B, C, H, W), float.
        labels: (B,), class indices.
    """
    x0 = backbone.embedding(images)
    blocks = _blocks(backbone)

    def loss(added: Tensor, added_at_the_end: Tensor) -> Tensor:
        shifted = [_Shifted(block, shift) for block, shift in zip(blocks, added[1:], strict=True)]
        *_, y = backbone.wiring.states(x0 + added[0], shifted)  # type: ignore[arg-type]
        return F.cross_entropy(head(backbone.features(y + added_at_the_end)), labels, reduction="sum")

    nothing = torch.zeros_like(x0)
    by_layer, at_the_end = grad(loss, argnums=(0, 1))(nothing.expand(len(blocks) + 1, *x0.shape), nothing)
    full = by_layer.flatten(1).double().square().sum(1)
    return torch.stack([at_the_end.double().square().sum().expand_as(full), full])


class _Shifted:
    """A block whose output has something added to it."""

    def __init__(self, block: Block, shift: Tensor) -> None:
        self._block, self._shift = block, shift
        self.contains_input = block.contains_input

    def __call__(self, x: Tensor) -> Tensor:
        shifted: Tensor = self._block(x) + self._shift
        return shifted


def _blocks(backbone: LayeredBackbone) -> list[Block]:
    return list(backbone.blocks)  # type: ignore[arg-type]


def _require_direct_path(wiring: Wiring, blocks: Sequence[Block]) -> None:
    if refusal := _refusal(wiring, blocks):
        raise UserError(refusal)


def _refusal(wiring: Wiring, blocks: Sequence[Block]) -> str:
    """Why gradients cannot be split here; empty where they can."""
    if wiring.direct_path is None:
        return f"{type(wiring).__name__} has no direct path to the output; wirings with one: acn, residual"
    closing = [block for block in blocks if block.contains_input]
    if wiring.direct_path == "skip" and closing:
        return (
            f"{type(closing[0]).__name__} blocks leave no identity path in a residual wiring, so there is no direct "
            f"gradient; use the block 'mixer', or the wiring 'acn'"
        )
    return ""


def _gradients(loss: Tensor, *groups: list[Tensor]) -> list[list[Tensor]]:
    """The gradient of ``loss`` at each tensor of each group; zero where none flows (a detached input)."""
    reached = [tensor for group in groups for tensor in group if tensor.requires_grad]
    found = iter(torch.autograd.grad(loss, reached, materialize_grads=True))
    return [[next(found) if t.requires_grad else torch.zeros_like(t) for t in group] for group in groups]


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(tensor.double()) for tensor in tensors])
