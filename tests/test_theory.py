"""The closed forms against autograd in float64, and path counts against enumeration."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from acn_cl import theory


def through(wiring: str, w: Tensor, x0: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The network itself: its output, and the tensor that each layer puts out (kept apart, to differentiate by)."""
    outputs: list[Tensor] = []
    x = y = z = x0
    for weight in w:
        outputs.append(weight * (z if wiring == "residual" else x))
        x, z, y = outputs[-1], z + outputs[-1], y + outputs[-1]
    return {"feedforward": x, "residual": z, "acn": y}[wiring], outputs


@pytest.mark.parametrize("wiring", theory.NETWORKS)
@pytest.mark.parametrize("depth", range(1, 13))
def test_closed_forms_equal_autograd(wiring: str, depth: int) -> None:
    rng = np.random.default_rng(depth)
    for scale in (0.3, 1.0, 2.0):
        w, x0 = rng.normal(scale=scale, size=depth), rng.normal()
        weights = torch.tensor(w, requires_grad=True)
        y, outputs = through(wiring, weights, torch.tensor(x0, dtype=torch.float64))
        *backward, gradient = (g.numpy() for g in torch.autograd.grad(y, [*outputs, weights]))
        terms = theory.NETWORKS[wiring](w, x0)
        assert terms.value == pytest.approx(y.item(), rel=1e-12)
        assert relative_error(terms.gradient, gradient) < 1e-12
        assert relative_error(terms.backward, np.array(backward)) < 1e-12
        assert relative_error(terms.forward, layer_inputs(wiring, w, x0)) < 1e-12


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def layer_inputs(wiring: str, w: np.ndarray, x0: float) -> np.ndarray:
    inputs, x = [], x0
    for weight in w:
        inputs.append(x)
        x = x + weight * x if wiring == "residual" else weight * x
    return np.array(inputs)


@pytest.mark.parametrize("wiring", theory.NETWORKS)
@pytest.mark.parametrize("depth", range(1, 13))
def test_parts_add_up(wiring: str, depth: int) -> None:
    terms = theory.NETWORKS[wiring](np.random.default_rng(depth).normal(size=depth), 0.7)
    np.testing.assert_allclose(terms.direct + terms.mediated, terms.backward, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        terms.direct_gradient + terms.mediated_gradient,
        terms.gradient,
        rtol=1e-12,
        atol=1e-12 * abs(terms.gradient).max(),
    )


def feedforward_path(hops: tuple[int, ...]) -> bool:
    """Whether a path is one of the network's: for each later layer, 1 if it goes through it, else 0."""
    return all(hops)


def residual_path(hops: tuple[int, ...]) -> bool:
    return True


def acn_path(hops: tuple[int, ...]) -> bool:
    return list(hops) == sorted(hops, reverse=True)  # through layers i + 1 … j, then straight to the output


PATHS: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "feedforward": feedforward_path,
    "residual": residual_path,
    "acn": acn_path,
}


@pytest.mark.parametrize("wiring", theory.NETWORKS)
@pytest.mark.parametrize("depth", range(1, 11))
def test_paths_equal_enumeration(wiring: str, depth: int) -> None:
    """All subsets of later layers are tried; those that are paths are counted, and their products summed."""
    w = np.random.default_rng(depth).normal(size=depth)
    terms = theory.NETWORKS[wiring](w)
    for i in range(1, depth + 1):
        paths = [hops for hops in product((0, 1), repeat=depth - i) if PATHS[wiring](hops)]
        products = [np.prod([weight for weight, hop in zip(w[i:], hops, strict=True) if hop]) for hops in paths]
        untouched = sum(not any(hops) for hops in paths)
        assert terms.paths[i - 1] == len(paths)
        assert terms.backward[i - 1] == pytest.approx(sum(products), rel=1e-12, abs=1e-13)
        assert terms.direct[i - 1] == untouched


def test_by_hand() -> None:
    """w = (2, 3, 5), x0 = 7."""
    ffn, res, acn = (theory.NETWORKS[name]([2, 3, 5], 7) for name in ("feedforward", "residual", "acn"))
    assert (ffn.value, res.value, acn.value) == (210, 504, 7 * (1 + 2 + 6 + 30))
    assert ffn.gradient.tolist() == [105, 70, 42]
    assert res.gradient.tolist() == [4 * 6 * 7, 3 * 6 * 7, 3 * 4 * 7]
    assert acn.gradient.tolist() == [(1 + 3 + 15) * 7, (1 + 5) * 14, 42]
    assert (ffn.paths, res.paths, acn.paths) == ((1, 1, 1), (4, 2, 1), (3, 2, 1))
    assert acn.direct_gradient.tolist() == [7, 14, 42]
    assert res.mediated.tolist() == [23, 5, 0]


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5])
def test_acn_teaches_early_layers_first_and_the_others_all_alike(scale: float) -> None:
    share = {
        name: theory.mean_gradient_share(network, 12, scale, np.random.default_rng(0), draws=2000)
        for name, network in theory.NETWORKS.items()
    }
    assert (np.diff(share["acn"]) < 0).all()
    for name in ("feedforward", "residual"):
        np.testing.assert_allclose(share[name], 1 / 12, atol=0.02)  # by symmetry: layers are exchangeable


def test_figure_shows_what_was_computed() -> None:
    figure = Figure()
    theory.draw_gradient_shares(figure, np.random.default_rng(0), depth=4, scales=(0.5, 2.0))
    rng = np.random.default_rng(0)
    assert len(figure.axes) == 2
    for panel, scale in zip(figure.axes, (0.5, 2.0), strict=True):
        assert [line.get_label() for line in panel.lines] == list(theory.NETWORKS)
        for line, network in zip(panel.lines, theory.NETWORKS.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), theory.mean_gradient_share(network, 4, scale, rng))
    figure.canvas.draw()


@pytest.mark.parametrize("wrong", [[], [[1.0, 2.0]], 3.0])
def test_weights_are_one_number_a_layer(wrong: object) -> None:
    with pytest.raises(ValueError, match="one number a layer"):
        theory.acn(wrong)
