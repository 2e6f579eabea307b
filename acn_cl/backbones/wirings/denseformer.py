"""Every layer reads a learned weighted sum of all earlier ones."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.wirings.base import Wiring


class WeightedSum(nn.Module):
    """``Σ_j α_j x_j`` over ``count`` tensors, one learned number each; at first only the newest counts."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(count)[-1].clone())

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """``count`` tensors of one shape -> a tensor of that shape."""
        terms = [alpha * x for alpha, x in zip(self.weight.unbind(0), outputs, strict=True)]
        return sum(terms[1:], terms[0])


class DenseFormer(Wiring):
    """``x_i = f_i(y_{i-1})``, ``y_i = Σ_{j ≤ i} α_ij x_j``, ``y_0 = x_0``; sub-network k returns ``y_k``.

    Source: Pagliardini et al., DenseFormer, arXiv 2402.02622, with its initialisation: α_ii = 1, the others 0. Differs:
    there the sub-layers of a block keep their skips, here (arXiv 2506.09714) they do not.

    Args:
        depth: layers L.
        width: features of a token, d.
    """

    def __init__(self, *, depth: int, width: int) -> None:
        super().__init__(depth=depth, width=width)
        self.layers.extend(WeightedSum(i + 1) for i in range(1, depth + 1))

    def states(self, x0: Tensor, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """``y_0 … y_L``."""
        outputs, y = [x0], x0
        yield y
        for weighted_sum, block in zip(self.layers, blocks, strict=True):
            outputs.append(block(y))
            y = weighted_sum(outputs)
            yield y
