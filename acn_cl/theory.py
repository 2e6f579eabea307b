"""Gradients of one-dimensional linear networks in closed form (arXiv 2506.09714).

A network has scalar weights ``w_1 … w_L`` and a scalar input ``x_0``; layer i is ``f_i(x) = w_i x``. What differs is
the wiring, and with it the paths by which a gradient arrives:

===========  =================================  ====================================  =============================
wiring       output y                           ∂y/∂w_i: backward term                ∂y/∂w_i: forward term
===========  =================================  ====================================  =============================
feedforward  ``Π w_j · x_0``                    ``Π_{k>i} w_k``                       ``Π_{m<i} w_m · x_0``
residual     ``Π (1 + w_j) · x_0``              ``Π_{k>i} (1 + w_k)``                 ``Π_{m<i} (1 + w_m) · x_0``
acn          ``(1 + Σ_i Π_{j≤i} w_j) · x_0``    ``1 + Σ_{j>i} Π_{k=i+1..j} w_k``      ``Π_{m<i} w_m · x_0``
===========  =================================  ====================================  =============================

Arrays are indexed from 0: entry ``i - 1`` belongs to layer i. numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """What one network computes, and how gradients reach its layers; vectors of shape (L,)."""

    value: float
    """The output y."""
    backward: Vector
    """``∂y/∂x_i``: the signal from the loss, over all paths from the output back to layer i."""
    direct: Vector
    """The part of ``backward`` that no later weight has touched: 1 where such a path exists, else 0."""
    mediated: Vector
    """The part of ``backward`` that comes through later layers."""
    forward: Vector
    """The signal that layer i multiplies: its input."""
    paths: tuple[int, ...]
    """Number of paths in ``backward``."""

    @property
    def gradient(self) -> Vector:
        """``∂y/∂w_i``, the full gradient FG."""
        return self.backward * self.forward

    @property
    def direct_gradient(self) -> Vector:
        """DG, the part of ``∂y/∂w_i`` that comes straight from the output."""
        return self.direct * self.forward

    @property
    def mediated_gradient(self) -> Vector:
        """NG, the part of ``∂y/∂w_i`` that comes through later layers."""
        return self.mediated * self.forward

    @property
    def gradient_share(self) -> Vector:
        """``|∂y/∂w_i| / Σ_j |∂y/∂w_j|``: how the learning signal is spread over the layers."""
        size = np.abs(self.gradient)
        share: Vector = size / size.sum()
        return share


def feedforward(w: ArrayLike, x0: float = 1.0) -> Terms:
    """A chain of layers: one path to each, and a direct one only to the last."""
    w = _weights(w)
    backward = _products_after(w)
    last = np.zeros_like(w)
    last[-1] = 1.0
    return Terms(
        value=float(w.prod() * x0),
        backward=backward,
        direct=last,
        mediated=backward * (1 - last),
        forward=_products_before(w) * x0,
        paths=(1,) * len(w),
    )


def residual(w: ArrayLike, x0: float = 1.0) -> Terms:
    """A skip around each layer: 2^(L-i) paths to layer i, one of them all skips."""
    w = _weights(w)
    backward = _products_after(1 + w)
    # What enters each layer on its way back; the skips hand on the sum of all that entered above.
    entering = w * backward
    return Terms(
        value=float((1 + w).prod() * x0),
        backward=backward,
        direct=np.ones_like(w),
        mediated=_sums_after(entering),
        forward=_products_before(1 + w) * x0,
        paths=tuple(2 ** (len(w) - i) for i in range(1, len(w) + 1)),
    )


def acn(w: ArrayLike, x0: float = 1.0) -> Terms:
    """A long connection from each layer to the output: L-i+1 paths to layer i, one of them its own connection."""
    w = _weights(w)
    mediated = np.array([np.cumprod(w[i:]).sum() for i in range(1, len(w) + 1)])
    return Terms(
        value=float((1 + np.cumprod(w).sum()) * x0),
        backward=1 + mediated,
        direct=np.ones_like(w),
        mediated=mediated,
        forward=_products_before(w) * x0,
        paths=tuple(len(w) - i + 1 for i in range(1, len(w) + 1)),
    )


NETWORKS: Final[Mapping[str, Callable[..., Terms]]] = {"feedforward": feedforward, "residual": residual, "acn": acn}
"""By the name of the wiring."""


def mean_gradient_share(
    network: Callable[..., Terms], depth: int, scale: float, rng: np.random.Generator, draws: int = 1000
) -> Vector:
    """Mean share of each layer in the gradient, (depth,), over networks with weights from N(0, scale²)."""
    weights = rng.normal(scale=scale, size=(draws, depth))
    return np.mean([network(w).gradient_share for w in weights], axis=0)  # type: ignore[no-any-return]


def draw_gradient_shares(
    figure: "Figure", rng: np.random.Generator, depth: int = 12, scales: Sequence[float] = (0.3, 0.7, 1.0, 1.5)
) -> None:
    """Draw the share of each layer in the gradient, for the three wirings, one panel a weight scale.

    The ACN's falls with depth at every scale, whereas the other two spread it evenly: its early layers learn first.

    Args:
        figure: an empty matplotlib figure, wide enough for ``len(scales)`` panels.
        rng: where the weights come from.
        depth: layers L.
        scales: standard deviations of the weights.
    """
    panels = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    layers = np.arange(1, depth + 1)
    for panel, scale in zip(panels, scales, strict=True):
        for (name, network), dashes in zip(NETWORKS.items(), ("--", ":", "-"), strict=True):
            panel.plot(layers, mean_gradient_share(network, depth, scale, rng), dashes, label=name)
        panel.set(title=f"weights ~ N(0, {scale}²)", xlabel="layer", xticks=layers[:: max(1, depth // 4)])
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("share of the gradient")
    panels[0].legend(frameon=False)


def _weights(w: ArrayLike) -> Vector:
    weights = np.asarray(w, dtype=np.float64)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"weights must be w_1 … w_L, one number a layer, not an array of shape {weights.shape}")
    return weights


def _products_before(factors: Vector) -> Vector:
    """``Π_{m<i} factors_m`` for each i."""
    return np.cumprod(np.concatenate([[1.0], factors[:-1]]))


def _products_after(factors: Vector) -> Vector:
    """``Π_{k>i} factors_k`` for each i."""
    return _products_before(factors[::-1])[::-1]


def _sums_after(terms: Vector) -> Vector:
    """``Σ_{k>i} terms_k`` for each i."""
    return np.cumsum(np.concatenate([[0.0], terms[:0:-1]]))[::-1]
