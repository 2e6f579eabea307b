"""Every wiring x block x pooling in the tables, and the named backbones against published ones.

A new line in a table is a new row of each of these tests.
"""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from acn_cl.backbones.backbone import Backbone
from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.build import build_backbone
from acn_cl.backbones.presets import BLOCKS, PRESETS, WIRINGS, BackboneSettings, backbone_fields, validate_backbone
from acn_cl.backbones.wirings.base import Wiring
from acn_cl.errors import UserError

DEPTH, BATCH, CHANNELS, IMAGE_SIZE, CLASSES = 3, 5, 2, (8, 12), 4
PAIRS = list(product(WIRINGS, BLOCKS))
TRIPLES = [
    (wiring, block, pool) for wiring, block in PAIRS for pool in ("mean", "cls") if (block, pool) != ("mlp", "cls")
]

every_pair = pytest.mark.parametrize(("wiring", "block"), PAIRS)
every_triple = pytest.mark.parametrize(("wiring", "block", "pool"), TRIPLES)
attention_falls_back = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


def make(wiring: str, block: str, pool: str = "mean", seed: int = 0, **settings: Any) -> Backbone:
    small = {"depth": DEPTH, "width": 12, "patch": 4, "pool": pool} | settings
    own = {"tokens_hidden": 5, "channels_hidden": 11, "heads": 3, "mlp_ratio": 2, "hidden": 7}
    own = {key: value for key, value in own.items() if key in BLOCKS[block].settings.model_fields}
    torch.manual_seed(seed)
    return build_backbone(wiring=wiring, block=block, image_size=IMAGE_SIZE, channels=CHANNELS, **small, **own)


def images(batch: int = BATCH, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, CHANNELS, *IMAGE_SIZE, dtype=dtype, generator=torch.Generator().manual_seed(1))


def labels() -> Tensor:
    return torch.arange(BATCH) % CLASSES


# --- depth as an axis -------------------------------------------------------------------------------------------------


@every_triple
def test_truncated_equals_sub_network_exactly(wiring: str, block: str, pool: str) -> None:
    backbone, x = make(wiring, block, pool), images()
    features = backbone.forward_depths(x)
    assert features.shape == (DEPTH + 1, BATCH, backbone.feature_size)
    assert torch.equal(features[-1], backbone(x))
    for k in range(DEPTH + 1):
        cut = backbone.truncate(k)
        assert cut.depth == k
        assert torch.equal(cut(x), features[k])
        assert torch.equal(cut.forward_depths(x), features[: k + 1])


@every_pair
def test_truncated_holds_the_first_layers_and_shares_nothing(wiring: str, block: str) -> None:
    backbone = make(wiring, block)
    cut = backbone.truncate(1)
    assert cut.parameters_by_depth() == [*backbone.parameters_by_depth()[:2], backbone.parameters_by_depth()[-1]]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert cut.state_dict().keys() < backbone.state_dict().keys()
    cut.load_state_dict({name: before[name] for name in cut.state_dict()})
    assert torch.equal(cut(images()), make(wiring, block).forward_depths(images())[1])


@pytest.mark.parametrize("wrong", [-1, DEPTH + 1])
def test_there_are_sub_networks_0_to_L(wrong: int) -> None:
    with pytest.raises(UserError, match=f"depth {wrong}: .* 0 to {DEPTH}"):
        make("acn", "mixer").truncate(wrong)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_acn_depths_equal_partial_sums_by_an_independent_loop(pool: str) -> None:
    backbone = make("acn", "mixer", pool).double()
    x = images(dtype=torch.float64)
    outputs = [backbone.embedding(x)]
    for block in backbone.blocks:
        outputs.append(block(outputs[-1]))
    for k, features in enumerate(backbone.forward_depths(x)):
        total = torch.stack(outputs[: k + 1]).sum(0)
        normed = F.layer_norm(total, (12,), backbone.norm.weight, backbone.norm.bias, eps=1e-6)
        expected = normed[:, 0] if pool == "cls" else normed.mean(1)
        torch.testing.assert_close(features, expected, rtol=1e-12, atol=1e-12)


@every_triple
def test_parameters_by_depth(wiring: str, block: str, pool: str) -> None:
    backbone = make(wiring, block, pool)
    counts = backbone.parameters_by_depth()
    assert len(counts) == DEPTH + 2
    assert sum(counts) == sum(parameter.numel() for parameter in backbone.parameters())
    learnt = sum(parameter.numel() for parameter in backbone.wiring.parameters())
    blocks = sum(parameter.numel() for parameter in backbone.blocks.parameters())
    assert sum(counts[1:-1]) == learnt + blocks
    assert counts[-1] == 2 * 12


def test_flops_by_depth_equal_a_count_by_hand() -> None:
    """Mixer: two products of N x S and d x D_C a token axis and block, each a multiply-add; a patch embedding."""
    tokens, width, hidden = 64, 128, (64, 512)
    embedding = 2 * tokens * (3 * 4 * 4) * width
    block = 2 * 2 * tokens * hidden[0] * width + 2 * 2 * tokens * width * hidden[1]
    backbone = build_backbone("ac_mixer", image_size=(32, 32), channels=3, depth=4)
    assert backbone.flops_by_depth() == [embedding + k * block for k in range(5)]
    assert backbone.flops_by_depth(batch=7) == [7 * flops for flops in backbone.flops_by_depth()]


@every_pair
def test_flops_by_depth_equal_those_of_the_truncated_backbones(wiring: str, block: str) -> None:
    backbone = make(wiring, block)
    flops = backbone.flops_by_depth()
    assert [backbone.truncate(k).flops_by_depth()[-1] for k in range(DEPTH + 1)] == flops
    assert all(parameter.device.type == "cpu" for parameter in backbone.parameters())


# --- conformance of every pair ----------------------------------------------------------------------------------------


@every_triple
def test_learns_a_step_with_finite_gradients_everywhere(wiring: str, block: str, pool: str) -> None:
    backbone = make(wiring, block, pool)
    head = nn.Linear(backbone.feature_size, CLASSES)
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=1e-3)
    before = F.cross_entropy(head(backbone(images())), labels())
    before.backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if (wiring, pool, name.rpartition(".")[0]) != ("acn-dg", "cls", "embedding.project"):
            assert parameter.grad.any(), name  # that one exception is told in the wiring's docstring
    optimizer.step()
    assert F.cross_entropy(head(backbone(images())), labels()) < before


@every_triple
def test_survives_save_and_load(wiring: str, block: str, pool: str, tmp_path: Any) -> None:
    saved, other = make(wiring, block, pool, seed=0), make(wiring, block, pool, seed=1)
    assert not torch.equal(saved(images()), other(images()))
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(saved(images()), other(images()))
    assert torch.equal(copy.deepcopy(saved)(images()), saved(images()))


@every_triple
def test_bf16_autocast(wiring: str, block: str, pool: str) -> None:
    backbone = make(wiring, block, pool)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone.forward_depths(images())
    features[-1].float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())
    full = backbone.forward_depths(images())
    assert (features.float() - full).norm() < 0.03 * full.norm()  # bf16 rounds at 2⁻⁹, a few times a layer


@attention_falls_back
@every_triple
def test_stacked_equals_separate(wiring: str, block: str, pool: str) -> None:
    """vmap over three runs' parameters and batches: features and gradients, float64."""
    backbones = [make(wiring, block, pool, seed=seed).double() for seed in range(3)]
    batches = torch.stack([images(dtype=torch.float64) + seed for seed in range(3)])
    target = torch.randn(BATCH, backbones[0].feature_size, dtype=torch.float64)

    def loss(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
        return (functional_call(backbones[0], parameters, (batch,)) * target).sum()

    parameters, _ = stack_module_state(backbones)
    values = vmap(loss)(parameters, batches)
    gradients = vmap(grad(loss))(parameters, batches)
    for run, backbone in enumerate(backbones):
        alone = (backbone(batches[run]) * target).sum()
        torch.testing.assert_close(values[run], alone, rtol=1e-10, atol=1e-10)
        own = torch.autograd.grad(alone, list(backbone.parameters()))
        for (name, _), gradient in zip(backbone.named_parameters(), own, strict=True):
            torch.testing.assert_close(gradients[name][run], gradient, rtol=1e-10, atol=1e-10)


def check_compiled(backbone: Backbone, backend: str, tolerance: float) -> None:
    """One graph, no breaks; features and gradients as without the compiler."""
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend=backend, fullgraph=True)
    features = compiled(images())
    torch.testing.assert_close(features, backbone(images()), rtol=tolerance, atol=tolerance)
    ours = torch.autograd.grad(features.square().sum(), list(backbone.parameters()))
    theirs = torch.autograd.grad(backbone(images()).square().sum(), list(backbone.parameters()))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance)


@every_pair
def test_compiles_as_one_graph(wiring: str, block: str) -> None:
    check_compiled(make(wiring, block, depth=2), "aot_eager", 1e-5)


def test_compiles_with_the_default_compiler() -> None:
    check_compiled(make("acn", "mixer", depth=1), "inductor", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_wiring_compiles_with_the_default_compiler(wiring: str) -> None:
    check_compiled(make(wiring, "mixer", depth=2), "inductor", 1e-4)


# --- the named backbones ----------------------------------------------------------------------------------------------


def copy_vit(theirs: nn.Module, ours: Backbone) -> None:
    """torchvision's ViT weights into a backbone of Transformer blocks."""
    with torch.no_grad():
        ours.embedding.project.weight.copy_(theirs.conv_proj.weight.flatten(1))
        ours.embedding.project.bias.copy_(theirs.conv_proj.bias)
        ours.embedding.class_token.copy_(theirs.class_token[0, 0])
        ours.embedding.positions.copy_(theirs.encoder.pos_embedding[0])
        for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=True):
            block.attention.query_key_value.weight.copy_(layer.self_attention.in_proj_weight)
            block.attention.query_key_value.bias.copy_(layer.self_attention.in_proj_bias)
            block.attention.output.load_state_dict(layer.self_attention.out_proj.state_dict())
            block.attention_norm.load_state_dict(layer.ln_1.state_dict())
            block.mlp_norm.load_state_dict(layer.ln_2.state_dict())
            block.mlp.first.load_state_dict(layer.mlp[0].state_dict())
            block.mlp.second.load_state_dict(layer.mlp[3].state_dict())
        ours.norm.load_state_dict(theirs.encoder.ln.state_dict())


def test_vit_base_16_equals_torchvision() -> None:
    from torchvision.models import vit_b_16

    ours = build_backbone("vit-base-16", image_size=(224, 224), channels=3).eval()
    assert sum(ours.parameters_by_depth()) + 768 * 1000 + 1000 == 86_567_656
    theirs = vit_b_16().eval()
    theirs.heads = nn.Identity()
    nn.init.normal_(theirs.class_token, std=0.02)
    copy_vit(theirs, ours)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (ours(x) - theirs(x)).abs().max() < 1e-4


def test_residual_mixer_equals_a_loop_over_timm_blocks() -> None:
    timm_mixer = pytest.importorskip("timm.models.mlp_mixer")
    theirs = timm_mixer.MlpMixer(0, 32, 3, 4, 3, 128, mlp_ratio=(0.5, 4.0)).eval()
    ours = build_backbone("res_mixer", image_size=(32, 32), channels=3, depth=3)
    names = {
        "mlp_tokens.fc1": "token_mlp.first",
        "mlp_tokens.fc2": "token_mlp.second",
        "mlp_channels.fc1": "channel_mlp.first",
        "mlp_channels.fc2": "channel_mlp.second",
        "norm1": "token_norm",
        "norm2": "channel_norm",
    }
    with torch.no_grad():
        ours.embedding.project.weight.copy_(theirs.stem.proj.weight.flatten(1))
        ours.embedding.project.bias.copy_(theirs.stem.proj.bias)
    ours.norm.load_state_dict(theirs.norm.state_dict())
    for block, layer in zip(ours.blocks, theirs.blocks, strict=True):
        for their_name, our_name in names.items():
            block.get_submodule(our_name).load_state_dict(layer.get_submodule(their_name).state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name: str) -> None:
    side = 224 if name.endswith("-16") else 32
    depth = {} if side == 32 else {"depth": 1}  # the large ones are compared with torchvision above
    backbone = build_backbone(name, image_size=(side, side), channels=3, **depth)
    assert backbone.depth == (1 if depth else PRESETS[name].defaults["depth"])
    assert backbone(torch.zeros(1, 3, side, side)).shape == (1, backbone.feature_size)


def test_paper_mixer_has_the_papers_sizes() -> None:
    section = validate_backbone({"name": "ac_mixer"}, (32, 32))
    assert section == {
        "name": "ac_mixer",
        "block": "mixer",
        "wiring": "acn",
        "depth": 16,
        "width": 128,
        "patch": 4,
        "pool": "mean",
        "tokens_hidden": 64,
        "channels_hidden": 512,
    }
    size = {
        name: sum(build_backbone(name, image_size=(32, 32), channels=3).parameters_by_depth())
        for name in ("ac_mixer", "res_mixer", "densenet_mixer")
    }
    assert size["ac_mixer"] == size["res_mixer"]
    assert size["densenet_mixer"] == pytest.approx(size["ac_mixer"], rel=0.03)  # 10 layers, "to match parameters"


def test_same_seed_same_start() -> None:
    same, other = make("acn", "transformer", seed=3), make("acn", "transformer", seed=3)
    for a, b in zip(same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


# --- the spec's section -----------------------------------------------------------------------------------------------


def test_tables_and_validation_import_no_torch() -> None:
    code = (
        "import sys; from acn_cl.backbones.presets import *; validate_backbone({'name': 'ac_mixer'}, (32, 32));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_key_means_two_things() -> None:
    for block, wiring in product(BLOCKS.values(), WIRINGS.values()):
        parts = (BackboneSettings, block.settings, wiring.settings)
        assert all(a.model_fields.keys().isdisjoint(b.model_fields) for a, b in combinations(parts, 2))


@pytest.mark.parametrize("name", PRESETS)
def test_resolved_section_resolves_to_itself(name: str) -> None:
    section = validate_backbone({"name": name, "depth": 2}, None)
    assert section["depth"] == 2
    assert set(section) == {"name", "block", "wiring", *backbone_fields(section["block"], section["wiring"])}
    assert validate_backbone(section, None) == section


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "ac_mxer"}, "backbone.name: unknown backbone 'ac_mxer'; did you mean 'ac_mixer'?"),
        ({"block": "mixr", "wiring": "acn"}, "backbone.block: unknown block 'mixr'; did you mean 'mixer'?"),
        (
            {"block": "mixer", "wiring": "residul"},
            "backbone.wiring: unknown wiring 'residul'; did you mean 'residual'?",
        ),
        ({"block": "mixer"}, "backbone.wiring: is missing; give block and wiring, or a name such as 'ac_mixer'"),
        ({}, "backbone.block: is missing; give block and wiring, or a name such as 'ac_mixer'"),
        ({"name": "ac_mixer", "patch": 5}, "patch: 5 does not divide the image of 32 x 48 pixels; nearest: 4 or 8"),
        ({"name": "ac_mixer", "patch": 99}, "patch: 99 does not divide the image of 32 x 48 pixels; nearest: 16"),
        ({"name": "ac_mlp", "pool": "cls"}, "backbone.pool: 'cls' with the block 'mlp' would never see the image"),
        ({"name": "ac_vit", "heads": 5}, "backbone.heads: 5 does not divide the width 192; nearest: 4 or 6"),
        ({"name": "ac_mixer", "wiring": "residual"}, "backbone.wiring: 'residual', but .*'ac_mixer' stands for 'acn'"),
        ({"name": "ac_mixer", "dpeth": 3}, "backbone.dpeth: there is no such key; did you mean 'depth'?"),
        ({"name": "ac_mixer", "gate_bias": -1.0}, "backbone.gate_bias: there is no such key"),
        ({"name": ["ac_mixer"]}, "backbone.name: unknown backbone"),
        ({"block": 3, "wiring": "acn"}, "backbone.block: unknown block 3"),
    ],
)
def test_impossible_sections_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        validate_backbone(section, (32, 48))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depth", 0),
        ("depth", -3),
        ("depth", True),
        ("depth", "5"),
        ("depth", 2.5),
        ("width", None),
        ("pool", "max"),
        ("tokens_hidden", 0),
        ("channels_hidden", "many"),
    ],
)
def test_wrong_values_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_backbone({"name": "ac_mixer", key: value}, None)
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


@given(
    section=st.dictionaries(
        st.sampled_from(["name", "block", "wiring", "depth", "width", "patch", "pool", "heads", "gate_bias", "x"]),
        st.one_of(st.sampled_from([*PRESETS, *BLOCKS, *WIRINGS, "cls"]), st.integers(-2, 64), st.none(), st.just([])),
    )
)
def test_any_section_is_resolved_or_refused(section: dict[str, Any]) -> None:
    try:
        resolved = validate_backbone(section, (32, 32))
    except (UserError, ValidationError):
        return
    assert resolved.items() >= section.items()


# --- somebody's own ---------------------------------------------------------------------------------------------------


class Shift(Block):
    """A block of a user's: ``x + amount``."""

    def __init__(self, *, width: int, tokens: int, inner_skips: bool, amount: float = 1.0) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.full((width,), amount))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


class Halving(Wiring):
    """A wiring of a user's: ``z_i = z_{i-1} / rate + f_i(z_{i-1})``."""

    def __init__(self, *, depth: int, width: int, rate: float) -> None:
        super().__init__(depth=depth, width=width)
        self.rate = rate

    def states(self, x0: Tensor, blocks: Any) -> Iterator[Tensor]:
        z = x0
        yield z
        for block in blocks:
            z = z / self.rate + block(z)
            yield z


class Flat(nn.Module):
    """A network of a user's."""

    def __init__(self, features: int, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(CHANNELS * IMAGE_SIZE[0] * IMAGE_SIZE[1], features)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) * self.scale


def unpooled() -> nn.Module:
    return nn.Conv2d(CHANNELS, 4, 3)


def word() -> str:
    return "no module"


class TwoOutputs(Flat):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under the name ``my_lab``, as a user's would be."""
    monkeypatch.setitem(sys.modules, "my_lab", sys.modules[__name__])


def build(name: str | None = None, **settings: Any) -> Backbone:
    return build_backbone(name, image_size=IMAGE_SIZE, channels=CHANNELS, **settings)


def test_own_block_and_wiring_by_dotted_path() -> None:
    sizes = {"depth": 2, "width": 3}
    backbone = build(block="my_lab:Shift", wiring="my_lab:Halving", amount=5.0, rate=4.0, **sizes)
    x = images()
    z = backbone.embedding(x)
    for _ in range(2):
        z = z / 4 + z + 5
    torch.testing.assert_close(backbone(x), backbone.norm(z).mean(1))
    assert torch.equal(backbone.truncate(1)(x), backbone.forward_depths(x)[1])
    assert build(block="my_lab:Shift", wiring="acn", **sizes).depth == 2
    assert build(block="mixer", wiring="my_lab:Halving", rate=2.0, **sizes).wiring.rate == 2.0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"block": "my_lab:Shift", "wiring": "acn", "amonut": 2.0}, "my_lab:Shift takes no 'amonut'; .*'amount'"),
        ({"block": "mixer", "wiring": "my_lab:Halving"}, "my_lab:Halving needs 'rate'"),
        ({"block": "my_lab:Shift", "wiring": "my_lab:Halving", "rate": 2.0, "x": 1}, "my_lab:Halving takes no 'x'"),
        ({"block": "my_lab:Halving", "wiring": "acn", "rate": 1.0, "depth": 2}, "my_lab:Halving"),
        ({"block": "my_lab:Nothing", "wiring": "acn"}, "my_lab has no 'Nothing'"),
        ({"name": "my_lab:Flat", "features": 3, "scal": 2.0}, "my_lab:Flat takes no 'scal'; did you mean 'scale'?"),
        ({"name": "my_lab:Flat"}, "my_lab:Flat needs 'features'"),
        ({"name": "my_lab:Flat", "features": "many"}, "my_lab:Flat fails with"),
        ({"name": "my_lab:BATCH"}, "my_lab:BATCH is of type int"),
        ({"name": "my_lab:word"}, "my_lab:word made a str, not an nn.Module"),
        ({"name": "my_lab:unpooled"}, r"shape \(2, 4, 6, 10\); it must be \(2, d\)"),
        ({"name": "my_lab:TwoOutputs", "features": 3}, "returns tuple"),
        ({"name": "torch.nn:Linear", "in_features": 3, "out_features": 3}, r"fails on images|must be \(2, d\)"),
        ({"name": "no_such_lab:Net"}, "no module 'no_such_lab'"),
    ],
)
def test_mistakes_with_own_parts_are_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("'?", r"'\?")):
        build(**section)


def test_a_dotted_section_is_left_as_it_is() -> None:
    section = {"name": "my_lab:Flat", "features": 3, "depth": "anything"}
    assert validate_backbone(section, IMAGE_SIZE) == section


def check_whole(backbone: Backbone, x: Tensor) -> None:
    backbone.eval()
    assert backbone.depth == 0
    features = backbone(x)
    assert features.shape == (len(x), backbone.feature_size)
    assert torch.equal(backbone.forward_depths(x), features[None])
    assert torch.equal(backbone.truncate(0)(x), features)
    assert backbone.parameters_by_depth() == [sum(p.numel() for p in backbone.parameters()), 0]
    with pytest.raises(UserError, match="only sub-network 0"):
        backbone.truncate(1)


def test_own_network_by_dotted_path() -> None:
    backbone = build("my_lab:Flat", features=6, scale=2.0)
    assert backbone.feature_size == 6
    check_whole(backbone, images())
    assert backbone.flops_by_depth(batch=3) == [3 * 2 * 6 * CHANNELS * IMAGE_SIZE[0] * IMAGE_SIZE[1]]


def paper_mixer(depth: int) -> Backbone:
    return build("ac_mixer", depth=depth)


def test_own_backbone_is_not_wrapped() -> None:
    assert build("my_lab:paper_mixer", depth=2).depth == 2


def test_timm_model_by_dotted_path() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"model_name": "resnet18", "num_classes": 0}
    backbone = build_backbone("timm:create_model", image_size=(32, 32), channels=3, **options)
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=0)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    check_whole(backbone, x)
    assert torch.equal(backbone(x), theirs.eval()(x))
    assert backbone.train().training
    assert backbone.module.bn1.num_batches_tracked == 0  # the probe left no trace


# --- the page in docs/ ------------------------------------------------------------------------------------------------


def test_the_code_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parent.parent / "docs" / "backbones.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_lab")
    names: dict[str, Any] = {}
    for block in blocks:
        if block.startswith("# my_lab.py\n"):
            (tmp_path / "my_lab.py").write_text(block, encoding="utf-8")
        else:
            exec(block, names)
    assert names["mine"].depth == 4
