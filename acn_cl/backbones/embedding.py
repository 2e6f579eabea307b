"""From images to tokens: patches, a linear map, and where asked for a class token and learned positions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def count_tokens(image_size: tuple[int, int], patch: int, class_token: bool) -> int:
    """N: the patches of an image of ``image_size`` pixels, and the class token if there is one."""
    height, width = image_size
    return (height // patch) * (width // patch) + class_token


class PatchEmbedding(nn.Module):
    """(B, C, H, W) images -> (B, N, d) tokens, N = H·W / patch² patches in row order, and a class token before them.

    Unfolds the image and multiplies: the numbers of a convolution with kernel and stride ``patch`` (its weight is ours
    reshaped to (d, C, patch, patch)), and, other than the convolution, cheap to batch over stacked parameters.

    Args:
        image_size: height and width in pixels, both multiples of ``patch``.
        channels: C.
        patch: side of a patch in pixels.
        width: features of a token, d.
        class_token: put a learned token before the patches.
        positions: add a learned vector to each token.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        patch: int,
        width: int,
        *,
        class_token: bool,
        positions: bool,
    ) -> None:
        super().__init__()
        self.image_shape = (channels, *image_size)
        self.patch = patch
        fan_in = channels * patch**2
        self.project = nn.Linear(fan_in, width)
        deviation = fan_in**-0.5
        nn.init.trunc_normal_(self.project.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.zeros_(self.project.bias)
        self.class_token = nn.Parameter(torch.zeros(width)) if class_token else None
        tokens = count_tokens(image_size, patch, class_token)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02) if positions else None

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), float -> tokens (B, N, d).

        Raises:
            ValueError: the images are not of the size that the embedding was built for.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images of shape {tuple(images.shape[1:])}; this backbone takes {self.image_shape}")
        x = F.linear(self._patches(images), self.project.weight, self.project.bias)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        return x if self.positions is None else x + self.positions

    def _patches(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C·patch²), the pixels of a patch in the order of a convolution's kernel."""
        batch, channels, height, width = images.shape
        rows, columns = height // self.patch, width // self.patch
        grid = images.reshape(batch, channels, rows, self.patch, columns, self.patch)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * self.patch**2)
