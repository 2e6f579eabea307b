"""The LayerNorm of every backbone."""

from torch import nn

EPSILON = 1e-6
"""As in ViT and MLP-Mixer (torchvision, timm, big_vision); torch's own default is 1e-5."""


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm over the features of a token, (..., width) -> (..., width)."""
    return nn.LayerNorm(width, eps=EPSILON)
