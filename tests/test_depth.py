"""Probing, effective depth, gradients by path, similarity and early exit, each against a naive or closed form."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from acn_cl import theory
from acn_cl.backbones.backbone import Backbone
from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.build import build_backbone
from acn_cl.backbones.presets import WIRINGS
from acn_cl.backbones.whole import WholeNetwork
from acn_cl.backbones.wirings.acn import Acn
from acn_cl.backbones.wirings.residual import Residual
from acn_cl.depth.early_exit import early_exit_curve, exit_depths
from acn_cl.depth.effective import EffectiveDepth, effective_depth
from acn_cl.depth.gradients import gradient_parts, norm_by_layer, split_gradient
from acn_cl.depth.probing import accuracy_by_depth, logits_by_depth, probe
from acn_cl.depth.similarity import cka_by_depth, linear_cka
from acn_cl.errors import UserError
from acn_cl.tables import resolve

DEPTH, CLASSES, SAMPLES = 4, 3, 23


def make(name: str = "ac_mixer", seed: int = 0, **settings: Any) -> Backbone:
    small = {"depth": DEPTH, "width": 12, "patch": 4} | settings
    torch.manual_seed(seed)
    return build_backbone(name, image_size=(8, 12), channels=2, **small)


def data(samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 2, 8, 12, generator=generator), torch.arange(samples) % CLASSES


def head(seed: int = 2) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(12, CLASSES)


# --- effective depth --------------------------------------------------------------------------------------------------


def naive_effective_depth(accuracy: list[float], tolerance: float) -> int:
    last = len(accuracy) - 1
    return min(k for k in range(last + 1) if all(accuracy[j] >= accuracy[last] - tolerance for j in range(k, last + 1)))


@given(
    accuracy=st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=20),
    tolerance=st.integers(0, 200).map(lambda n: n / 1000 + 0.0005),  # between two accuracies, so that rounding is idle
)
def test_effective_depth_equals_its_definition(accuracy: list[float], tolerance: float) -> None:
    assert effective_depth(accuracy, tolerance).depth == naive_effective_depth(accuracy, tolerance)


@pytest.mark.parametrize(
    ("accuracy", "tolerance", "samples", "expected"),
    [
        ([0.1, 0.5, 0.9, 0.9], 0.005, None, EffectiveDepth(2, 0.005)),
        ([0.1, 0.895, 0.9], 0.005, None, EffectiveDepth(1, 0.005)),  # exactly on the tolerance counts as within
        ([0.9, 0.1, 0.9], 0.005, None, EffectiveDepth(2, 0.005)),  # a lucky shallow sub-network does not count
        ([0.2, 0.95, 0.9], 0.005, None, EffectiveDepth(1, 0.005)),  # better than the whole is good enough
        ([0.1, 0.88, 0.9], 0.005, 50, EffectiveDepth(1, 0.02)),  # one image of 50 is two points
        ([0.1, 0.88, 0.9], 0.005, 1000, EffectiveDepth(2, 0.005)),
        ([0.3], 0.0, None, EffectiveDepth(0, 0.0)),
    ],
)
def test_effective_depth_by_hand(
    accuracy: list[float], tolerance: float, samples: int | None, expected: EffectiveDepth
) -> None:
    assert effective_depth(accuracy, tolerance, samples) == expected


@pytest.mark.parametrize("wrong", [[], [[0.1, 0.2]], [50.0, 90.0], [0.1, math.nan], [-0.1]])
def test_effective_depth_refuses_what_are_no_accuracies(wrong: list[Any]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        effective_depth(wrong)
    with pytest.raises(ValueError, match="negative"):
        effective_depth([0.5], tolerance=-0.1)


def test_effective_depth_imports_no_torch() -> None:
    code = "import sys, acn_cl.depth.effective; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- probing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 10, 100])
def test_probe_equals_truncated_backbones_one_by_one(batch_size: int) -> None:
    backbone, classify, (images, labels) = make(), head(), data()
    result = probe(backbone, classify, images, labels, batch_size)
    for k in range(DEPTH + 1):
        logits = classify(backbone.truncate(k)(images))
        right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True))
        assert result.accuracy[k] == right / SAMPLES
        assert result.loss[k] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.samples == SAMPLES
    np.testing.assert_array_equal(accuracy_by_depth(backbone, classify, images, labels), result.accuracy)


def test_probe_finds_what_a_perfect_head_knows() -> None:
    """A 'network' that puts out its label's one-hot vector is right; with a shifted head it is always wrong."""
    _, labels = data()
    images = F.one_hot(labels, CLASSES)[:, :, None, None].float()
    network = WholeNetwork(nn.Flatten(), image_size=(1, 1), channels=CLASSES)
    assert accuracy_by_depth(network, nn.Identity(), images, labels).tolist() == [1.0]
    assert accuracy_by_depth(network, lambda x: x.roll(1, -1), images, labels).tolist() == [0.0]


def test_probe_leaves_the_mode_and_the_graph_alone() -> None:
    backbone, (images, labels) = make(), data()
    for mode in (True, False):
        backbone.train(mode)
        probe(backbone, head(), images, labels)
        assert backbone.training is mode
    assert not logits_by_depth(backbone, head(), images, batch_size=5).requires_grad


def test_logits_by_depth_do_not_depend_on_the_batch() -> None:
    backbone, classify, (images, _) = make(), head(), data()
    logits = logits_by_depth(backbone, classify, images, batch_size=7)
    assert logits.shape == (DEPTH + 1, SAMPLES, CLASSES)
    torch.testing.assert_close(logits, logits_by_depth(backbone, classify, images, batch_size=SAMPLES))
    torch.testing.assert_close(logits[-1], classify(backbone(images)).detach())


# --- gradients --------------------------------------------------------------------------------------------------------


def test_norm_by_layer_equals_a_loop_over_parameters() -> None:
    backbone, (images, _) = make("highway_mixer"), data()
    backbone(images).sin().sum().backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    norms = norm_by_layer(gradients, backbone.layer_of_parameters())
    assert norms.shape == (DEPTH + 2,)
    parts = [backbone.embedding, *zip(backbone.blocks, backbone.wiring.layers, strict=True), backbone.norm]
    for norm, modules in zip(norms, parts, strict=True):
        flat = [
            p.grad.flatten()
            for m in nn.ModuleList(modules if isinstance(modules, tuple) else [modules])
            for p in m.parameters()
        ]
        torch.testing.assert_close(norm, torch.cat(flat).norm())


def test_norm_by_layer_of_a_stack_equals_separate() -> None:
    backbones = [make(seed=seed) for seed in range(3)]
    layer_of = backbones[0].layer_of_parameters()
    stacked = torch.func.stack_module_state(backbones)[0]
    norms = torch.func.vmap(lambda tensors: norm_by_layer(tensors, layer_of))(stacked)
    for row, backbone in zip(norms, backbones, strict=True):
        torch.testing.assert_close(row, norm_by_layer(dict(backbone.named_parameters()), layer_of))


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("name", ["ac_mixer", "res_mixer", "ac_vit", "res_vit", "ac_mixer-projected", "acdg_mixer"])
def test_parts_add_up_at_every_layer(name: str, pool: str) -> None:
    """DG + NG = FG, each measured by itself, in the paper's size and in float32."""
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=(32, 32), channels=3, depth=6, pool=pool)
    classify = nn.Linear(backbone.feature_size, 5)
    parts = gradient_parts(backbone, classify, torch.randn(8, 3, 32, 32), torch.arange(8) % 5)
    assert len(parts.direct) == len(parts.mediated) == len(parts.full) == 7
    for direct, mediated, full in zip(parts.direct, parts.mediated, parts.full, strict=True):
        assert full.shape == (8, 64 + (pool == "cls"), backbone.feature_size)
        assert (direct + mediated - full).norm() < 1e-5 * full.norm()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert parts.direct_share()[-1] == pytest.approx(1)


@pytest.mark.parametrize("name", ["ac_mixer", "res_mixer"])
def test_full_gradient_equals_autograd_at_tensors_kept_apart(name: str) -> None:
    """FG without hooks: a loop that keeps what each layer hands on."""
    backbone, classify, (images, labels) = make(name).double(), head().double(), data()
    x = z = y = backbone.embedding(images.double())
    handed = [x]
    for block in backbone.blocks:
        x = block(z if name == "res_mixer" else x)
        z, y = z + x, y + x
        handed.append(z if name == "res_mixer" else x)
    loss = F.cross_entropy(classify(backbone.features(z if name == "res_mixer" else y)), labels)
    expected = torch.autograd.grad(loss, handed)
    parts = gradient_parts(backbone, classify, images.double(), labels)
    for ours, theirs in zip(parts.full, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-15)


class Times(Block):
    """``w x``: one layer of a one-dimensional linear network."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


@pytest.mark.parametrize(("wiring", "name"), [(Acn, "acn"), (Residual, "residual")])
@pytest.mark.parametrize("depth", range(1, 13))
def test_measured_parts_equal_theory_on_a_linear_stack(wiring: type, name: str, depth: int) -> None:
    w = np.random.default_rng(depth).normal(size=depth)
    x0 = torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    parts = split_gradient(wiring(depth=depth, width=1), [Times(float(v)) for v in w], x0, lambda y: 3 * y.sum())
    terms = theory.NETWORKS[name](w, 0.7)
    for measured, expected in (
        (parts.direct, terms.direct),
        (parts.mediated, terms.mediated),
        (parts.full, terms.backward),
    ):
        np.testing.assert_allclose(torch.stack(measured[1:]).flatten(), 3 * expected, rtol=1e-12, atol=1e-12)


def test_direct_gradient_acn_has_nothing_mediated() -> None:
    images, labels = data()
    parts = gradient_parts(make("acdg_mixer"), head(), images, labels)
    assert not any(mediated.any() for mediated in parts.mediated)
    torch.testing.assert_close(parts.direct_share(), torch.ones(DEPTH + 1, dtype=torch.float64))


def test_hooks_are_taken_off_again() -> None:
    backbone, (images, labels) = make(), data()
    gradient_parts(backbone, head(), images, labels)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in backbone.blocks)


def test_gradients_can_be_split_in_these_wirings() -> None:
    assert [name for name, line in WIRINGS.items() if resolve(line.target).direct_path] == ["residual", "acn", "acn-dg"]


def test_no_direct_path_is_said() -> None:
    images, labels = data()
    with pytest.raises(UserError, match="FeedForward has no direct path"):
        gradient_parts(make("ffn_mixer"), head(), images, labels)
    with pytest.raises(UserError, match="ProjectedMixer blocks leave no identity path"):
        gradient_parts(make("res_mixer-projected"), head(), images, labels)
    network = WholeNetwork(nn.Flatten(), image_size=(8, 12), channels=2)
    with pytest.raises(UserError, match="one piece"):
        gradient_parts(network, head(), images, labels)


# --- similarity -------------------------------------------------------------------------------------------------------


def features(seed: int, columns: int) -> Tensor:
    return torch.randn(40, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The other formula of arXiv 1905.00414: HSIC of the N x N Gram matrices, with the centring matrix."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        return float(np.trace(k @ centre @ m @ centre))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_equals_the_gram_matrix_form() -> None:
    x, y = features(0, 5) + 3, features(1, 7) - 2
    assert linear_cka(x, y) == pytest.approx(naive_cka(x.numpy(), y.numpy()), rel=1e-10)


def test_cka_knows_no_rotation_scale_or_shift() -> None:
    x = features(0, 6)
    rotation, _ = torch.linalg.qr(features(2, 6)[:6])
    assert linear_cka(x, 5 * x @ rotation + 1) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, features(3, 6)) < 0.5
    assert math.isnan(linear_cka(x, torch.ones(40, 2)))
    with pytest.raises(ValueError, match=r"\(40, 6\) and \(39, 6\)"):
        linear_cka(x, x[1:])


def test_cka_by_depth_sees_only_the_layers_that_changed() -> None:
    before, after, (images, _) = make(), make(), data()
    np.testing.assert_allclose(cka_by_depth(before, after, images), 1, atol=1e-6)
    with torch.no_grad():
        after.blocks[2].channel_mlp.second.weight.normal_(generator=torch.Generator().manual_seed(5))
    similarity = cka_by_depth(before, after, images, batch_size=5)
    np.testing.assert_allclose(similarity[:3], 1, atol=1e-6)
    assert (similarity[3:] < 0.999).all()
    assert similarity[3] == pytest.approx(
        naive_cka(*(b.double().forward_depths(images.double())[3].detach().numpy() for b in (before, after))), abs=1e-6
    )
    with pytest.raises(ValueError, match="same depth"):
        cka_by_depth(before, make(depth=2), images)


def test_cka_of_a_class_token_that_has_seen_nothing_is_undefined() -> None:
    backbone, (images, _) = make(pool="cls"), data()
    similarity = cka_by_depth(backbone, backbone, images)
    assert math.isnan(similarity[0])
    np.testing.assert_allclose(similarity[1:], 1)


# --- early exit -------------------------------------------------------------------------------------------------------


def some_logits(seed: int = 0) -> Tensor:
    """Logits that grow surer with depth."""
    surer = torch.arange(1.0, DEPTH + 2)[:, None, None]
    return surer * torch.randn(DEPTH + 1, SAMPLES, CLASSES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("exits", [None, [1, 3], [DEPTH], []])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, math.log(CLASSES) + 1])
def test_early_exit_equals_a_naive_loop(threshold: float, exits: list[int] | None) -> None:
    logits, (_, labels) = some_logits(), data()
    flops = [10, 20, 40, 70, 110]
    depths, right = [], 0
    for n in range(SAMPLES):
        for k in range(DEPTH + 1):
            p = [math.exp(v) for v in logits[k, n].tolist()]
            entropy = -sum(q / sum(p) * math.log(q / sum(p)) for q in p)
            if k == DEPTH or ((exits is None or k in exits) and entropy < threshold):
                depths.append(k)
                right += int(logits[k, n].argmax()) == int(labels[n])
                break
    assert exit_depths(logits, threshold, exits).tolist() == depths
    curve = early_exit_curve(logits, labels, flops, [threshold], exits)
    assert curve.accuracy.tolist() == [pytest.approx(right / SAMPLES)]
    mean = sum(flops[k] for k in depths) / SAMPLES
    assert curve.flops.tolist() == [pytest.approx(mean)]
    assert curve.speed_up.tolist() == [pytest.approx(flops[-1] / mean)]


def test_early_exit_curve_runs_from_the_whole_network_to_the_first_exit() -> None:
    logits, (_, labels) = some_logits(), data()
    thresholds = [0.0, 0.2, 0.5, 0.9, 2.0]
    curve = early_exit_curve(logits, labels, [10, 20, 40, 70, 110], thresholds)
    assert (np.diff(curve.flops) <= 0).all()
    assert curve.flops[0] == 110
    assert curve.flops[-1] == 10
    assert curve.accuracy[0] == (logits[-1].argmax(-1) == labels).double().mean().item()
    assert curve.threshold.tolist() == thresholds
    with pytest.raises(ValueError, match=r"0 … 4, not 9"):
        exit_depths(logits, 0.5, exits=[2, 9])
