"""How much the features of each depth have changed between two checkpoints."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acn_cl.backbones.backbone import Backbone
from acn_cl.depth.probing import evaluation_mode


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same N images; 1: alike up to rotation and scale.

    ``‖Xᵀ Y‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)`` with Frobenius norms and centred columns, in float64 (Kornblith et al., arXiv
    1905.00414, section 3). NaN where the features of one side do not vary, for then nothing is defined.

    Args:
        x: (N, p).
        y: (N, q).

    Raises:
        ValueError: the two do not have the same N.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"features of the same images, (N, p) and (N, q), not {tuple(x.shape)} and {tuple(y.shape)}")
    return float(linear_cka_each(x[None], y[None]))


def linear_cka_each(x: Tensor, y: Tensor) -> Tensor:
    """:func:`linear_cka` of each of K pairs, float64: (K, N, p) and (K, N, q) -> (K,)."""
    x, y = (features.double() - features.double().mean(1, keepdim=True) for features in (x, y))
    norm = torch.linalg.matrix_norm
    scale = norm(x.mT @ x) * norm(y.mT @ y)
    return torch.where(scale > 0, norm(x.mT @ y) ** 2 / scale, torch.nan)


def cka_by_depth(before: Backbone, after: Backbone, images: Tensor, batch_size: int = 256) -> NDArray[np.float64]:
    """Linear CKA between the features of sub-networks 0 … L at two checkpoints, (L + 1,).

    Depth 0 with CLS pooling is NaN: the class token has not met the image yet.

    Args:
        before: one checkpoint.
        after: the other, of the same depth.
        images: (N, C, H, W), float; both see the same. Take N well above d, as CKA of few images is biased upwards.
        batch_size: images at once; the result does not depend on it.
    """
    if before.depth != after.depth:
        raise ValueError(f"checkpoints of the same depth, not {before.depth} and {after.depth}")
    cka: NDArray[np.float64] = linear_cka_each(
        _features(before, images, batch_size), _features(after, images, batch_size)
    ).numpy(force=True)
    return cka


def _features(backbone: Backbone, images: Tensor, batch_size: int) -> Tensor:
    """(L + 1, N, d)."""
    with evaluation_mode(backbone), torch.no_grad():
        return torch.cat([backbone.forward_depths(batch) for batch in torch.split(images, batch_size)], dim=1)
