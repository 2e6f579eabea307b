"""Blocks and the patch embedding against torchvision, timm, a convolution, and plain transcriptions of their formulas.

Sizes are distinct, so that no axis can stand in for another unnoticed; everything is float64.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.blocks.mixer import Mixer
from acn_cl.backbones.blocks.mixer_projected import ProjectedMixer
from acn_cl.backbones.blocks.mlp import Mlp
from acn_cl.backbones.blocks.transformer import Transformer
from acn_cl.backbones.embedding import PatchEmbedding
from acn_cl.backbones.presets import BLOCKS
from acn_cl.tables import resolve

BATCH, TOKENS, WIDTH, TOKENS_HIDDEN, CHANNELS_HIDDEN, HEADS = 2, 7, 12, 5, 11, 3
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def randomised(module: nn.Module) -> nn.Module:
    """``module`` in float64 with all parameters random, so that a forgotten bias or norm weight shows."""
    module.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return module


def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def norm(x: Tensor, weights: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights.weight + weights.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def mixer(inner_skips: bool) -> Mixer:
    return randomised(
        Mixer(
            width=WIDTH,
            tokens=TOKENS,
            inner_skips=inner_skips,
            tokens_hidden=TOKENS_HIDDEN,
            channels_hidden=CHANNELS_HIDDEN,
        )
    )


def mixed(block: Mixer, x: Tensor, skip: bool) -> Tensor:
    """The Mixer of arXiv 2105.01601, one token axis at a time, with or without its two skips."""
    u, v = block.token_mlp, block.channel_mlp
    t = norm(x, block.token_norm)
    t = gelu(torch.einsum("bnd,sn->bsd", t, u.first.weight) + u.first.bias[None, :, None])
    t = torch.einsum("bsd,ns->bnd", t, u.second.weight) + u.second.bias[None, :, None]
    t = t + x if skip else t
    c = gelu(torch.einsum("bnd,cd->bnc", norm(t, block.channel_norm), v.first.weight) + v.first.bias)
    c = torch.einsum("bnc,dc->bnd", c, v.second.weight) + v.second.bias
    return t + c if skip else c


def test_residual_mixer_equals_timm() -> None:
    timm_mixer = pytest.importorskip("timm.models.mlp_mixer")
    ratios = (TOKENS_HIDDEN / WIDTH, CHANNELS_HIDDEN / WIDTH)
    theirs = randomised(timm_mixer.MixerBlock(WIDTH, TOKENS, mlp_ratio=ratios))
    ours = mixer(inner_skips=True)
    names = {
        "token_norm": "norm1",
        "token_mlp.first": "mlp_tokens.fc1",
        "token_mlp.second": "mlp_tokens.fc2",
        "channel_norm": "norm2",
        "channel_mlp.first": "mlp_channels.fc1",
        "channel_mlp.second": "mlp_channels.fc2",
    }
    for our_name, their_name in names.items():
        ours.get_submodule(our_name).load_state_dict(theirs.get_submodule(their_name).state_dict())
    x = tokens()
    torch.testing.assert_close(x + ours(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("inner_skips", [True, False])
def test_mixer_equals_its_formula(inner_skips: bool) -> None:
    block, x = mixer(inner_skips), tokens()
    expected = mixed(block, x, skip=inner_skips)
    torch.testing.assert_close(block(x) + (x if inner_skips else 0), expected, **CLOSE)


@pytest.mark.parametrize("inner_skips", [True, False])
def test_projected_mixer_equals_its_formula(inner_skips: bool) -> None:
    sizes = {"tokens_hidden": TOKENS_HIDDEN, "channels_hidden": CHANNELS_HIDDEN}
    block = randomised(ProjectedMixer(width=WIDTH, tokens=TOKENS, inner_skips=inner_skips, **sizes))
    x = tokens()
    h = mixed(block.mixer, x, skip=inner_skips)
    expected = norm((torch.einsum("bnd,ed->bne", h, block.project.weight) + x).clamp(min=0), block.norm)
    torch.testing.assert_close(block(x), expected, **CLOSE)


def transformer(inner_skips: bool, attention_skip: bool = False) -> Transformer:
    block = Transformer(
        width=WIDTH, tokens=TOKENS, inner_skips=inner_skips, heads=HEADS, mlp_ratio=4, attention_skip=attention_skip
    )
    return randomised(block)


def attended(block: Transformer, x: Tensor) -> Tensor:
    """Softmax attention, head by head."""
    size = WIDTH // HEADS
    query, key, value = F.linear(x, block.attention.query_key_value.weight, block.attention.query_key_value.bias).chunk(
        3, dim=-1
    )
    heads = []
    for begin in range(0, WIDTH, size):
        q, k, v = (part[..., begin : begin + size] for part in (query, key, value))
        heads.append((q @ k.transpose(1, 2) / size**0.5).softmax(-1) @ v)
    return F.linear(torch.cat(heads, -1), block.attention.output.weight, block.attention.output.bias)


@pytest.mark.parametrize(("inner_skips", "attention_skip"), [(True, False), (False, False), (False, True)])
def test_transformer_equals_its_formula(inner_skips: bool, attention_skip: bool) -> None:
    block, x = transformer(inner_skips, attention_skip), tokens()
    a = attended(block, norm(x, block.attention_norm))
    a = a + x if inner_skips or attention_skip else a
    hidden = gelu(F.linear(norm(a, block.mlp_norm), block.mlp.first.weight, block.mlp.first.bias))
    m = F.linear(hidden, block.mlp.second.weight, block.mlp.second.bias)
    expected = a + m - x if inner_skips else m
    torch.testing.assert_close(block(x), expected, **CLOSE)


def test_mlp_equals_its_formula_on_each_token_alone() -> None:
    block = randomised(Mlp(width=WIDTH, tokens=TOKENS, inner_skips=False, hidden=CHANNELS_HIDDEN))
    x = tokens()
    for n in range(TOKENS):
        hidden = gelu(F.linear(norm(x[:, n], block.norm), block.mlp.first.weight, block.mlp.first.bias))
        expected = F.linear(hidden, block.mlp.second.weight, block.mlp.second.bias)
        torch.testing.assert_close(block(x)[:, n], expected, **CLOSE)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_keeps_the_shape_and_reads_its_input(name: str) -> None:
    line = BLOCKS[name]
    block = resolve(line.target)(
        width=WIDTH, tokens=TOKENS, inner_skips=False, **line.settings(**small(name)).model_dump()
    )
    assert isinstance(block, Block)
    x = tokens().float()
    assert block(x).shape == x.shape
    assert not torch.equal(block(x), block(x + 1e-3 * torch.randn_like(x)))


def small(name: str) -> dict[str, int]:
    return {"heads": HEADS} if "heads" in BLOCKS[name].settings.model_fields else {}


def test_patch_embedding_equals_a_convolution() -> None:
    patch, channels, image_size = 4, 3, (8, 20)
    embedding = randomised(PatchEmbedding(image_size, channels, patch, WIDTH, class_token=True, positions=True))
    images = torch.randn(BATCH, channels, *image_size, dtype=torch.float64)
    kernel = embedding.project.weight.view(WIDTH, channels, patch, patch)
    patches = F.conv2d(images, kernel, embedding.project.bias, stride=patch).flatten(2).transpose(1, 2)
    class_token = embedding.class_token.expand(BATCH, 1, WIDTH)
    expected = torch.cat([class_token, patches], 1) + embedding.positions
    torch.testing.assert_close(embedding(images), expected, **CLOSE)


def test_patch_embedding_refuses_other_sizes() -> None:
    embedding = PatchEmbedding((8, 8), 3, 4, WIDTH, class_token=False, positions=False)
    with pytest.raises(ValueError, match=r"\(3, 8, 12\).*\(3, 8, 8\)"):
        embedding(torch.zeros(1, 3, 8, 12))


def test_initialisation_is_as_documented() -> None:
    torch.manual_seed(0)
    block = Mlp(width=256, tokens=1, inner_skips=False, hidden=1024)
    bound = (6 / (256 + 1024)) ** 0.5
    for layer in (block.mlp.first, block.mlp.second):
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
        assert not layer.bias.any()
    embedding = PatchEmbedding((64, 64), 3, 8, 256, class_token=True, positions=True)
    fan_in = 3 * 8**2
    assert embedding.project.weight.abs().max() <= 2 * fan_in**-0.5
    assert embedding.project.weight.std().item() == pytest.approx(0.88 * fan_in**-0.5, rel=0.02)  # cut at 2 σ: 0.880 σ
    assert embedding.positions.std().item() == pytest.approx(0.02, rel=0.02)
    assert not embedding.class_token.any()


def test_blocks_differ_from_one_another_at_the_start() -> None:
    torch.manual_seed(0)
    made = [Mlp(width=8, tokens=1, inner_skips=False, hidden=8) for _ in range(3)]
    assert not any(torch.equal(a.mlp.first.weight, b.mlp.first.weight) for a, b in pairwise(made))
