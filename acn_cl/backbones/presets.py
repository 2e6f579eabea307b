"""The tables of blocks, wirings and named backbones, and the check of a spec's ``backbone`` section. No torch here.

To add a block or a wiring: one class in one file under ``blocks/`` or ``wirings/``, and its line below. The tests,
``acn-cl list`` and the spec read these tables, and know no other list.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic.fields import FieldInfo

from acn_cl.backbones.settings import (
    BackboneSettings,
    BlockSettings,
    HighwaySettings,
    MixerSettings,
    MlpSettings,
    TransformerSettings,
    nearest_divisors,
)
from acn_cl.errors import SpecError, suggest
from acn_cl.tables import Entry, Settings, is_dotted

__all__ = ["BLOCKS", "PRESETS", "WIRINGS", "BackboneSettings", "backbone_fields", "validate_backbone"]

BLOCKS: Final[Mapping[str, Entry]] = {
    "mixer": Entry(
        target="acn_cl.backbones.blocks.mixer:Mixer",
        about="token MLP, then channel MLP, each after a LayerNorm (MLP-Mixer)",
        settings=MixerSettings,
    ),
    "mixer-projected": Entry(
        target="acn_cl.backbones.blocks.mixer_projected:ProjectedMixer",
        about="the Mixer block of the ACN authors' code: LayerNorm(ReLU(W mixer(x) + x))",
        settings=MixerSettings,
    ),
    "transformer": Entry(
        target="acn_cl.backbones.blocks.transformer:Transformer",
        about="self-attention, then MLP, each after a LayerNorm (ViT)",
        settings=TransformerSettings,
    ),
    "mlp": Entry(
        target="acn_cl.backbones.blocks.mlp:Mlp",
        about="an MLP on each token alone, after a LayerNorm",
        settings=MlpSettings,
    ),
}

WIRINGS: Final[Mapping[str, Entry]] = {
    "feedforward": Entry(
        target="acn_cl.backbones.wirings.feedforward:FeedForward",
        about="each layer reads the one before; no skips at all",
    ),
    "residual": Entry(
        target="acn_cl.backbones.wirings.residual:Residual",
        about="each layer adds to what it reads (ResNet)",
    ),
    "acn": Entry(
        target="acn_cl.backbones.wirings.acn:Acn",
        about="each layer reads the one before; the output is the sum of all layers and the embedding",
    ),
    "acn-dg": Entry(
        target="acn_cl.backbones.wirings.acn_dg:AcnDirectGradient",
        about="acn, trained by its direct gradient only",
    ),
    "highway": Entry(
        target="acn_cl.backbones.wirings.highway:Highway",
        about="each layer is mixed into what it reads by a learned gate",
        settings=HighwaySettings,
    ),
    "densenet": Entry(
        target="acn_cl.backbones.wirings.densenet:DenseNet",
        about="each layer reads all earlier ones, concatenated and projected back to the width",
    ),
    "denseformer": Entry(
        target="acn_cl.backbones.wirings.denseformer:DenseFormer",
        about="each layer reads a learned weighted sum of all earlier ones",
    ),
}

_WIRING_PREFIX = {
    "acn": "ac",
    "acn-dg": "acdg",
    "residual": "res",
    "feedforward": "ffn",
    "highway": "highway",
    "densenet": "densenet",
    "denseformer": "denseformer",
}

_MIXER = {"depth": 16, "width": 128, "patch": 4, "pool": "mean", "tokens_hidden": 64, "channels_hidden": 512}
"""The Mixer of arXiv 2506.09714 for 32 x 32 images."""
_CIFAR_VIT = {"depth": 12, "width": 192, "patch": 4, "pool": "cls", "heads": 3}
"""ViT-tiny on the 64 patches of a 32 x 32 image."""
_MLP = {"depth": 16, "width": 128, "patch": 4, "pool": "mean", "hidden": 512}
_VIT_16 = {
    "tiny": {"depth": 12, "width": 192, "patch": 16, "pool": "cls", "heads": 3},
    "small": {"depth": 12, "width": 384, "patch": 16, "pool": "cls", "heads": 6},
    "base": {"depth": 12, "width": 768, "patch": 16, "pool": "cls", "heads": 12},
}
"""ViT (arXiv 2010.11929) and DeiT (arXiv 2012.12877) sizes, for images of 224 x 224."""


def _preset(block: str, wiring: str, about: str, defaults: Mapping[str, Any]) -> Entry:
    return Entry(
        target="acn_cl.backbones.build:build_backbone",
        about=about,
        settings=BackboneSettings,
        fixed={"block": block, "wiring": wiring},
        defaults=defaults,
    )


def _mixer_sizes(wiring: str) -> dict[str, Any]:
    # The ACN paper compares a DenseNet of 10 layers with 16 of the others: its projections hold the difference.
    return _MIXER | {"depth": 10} if wiring == "densenet" else _MIXER


PRESETS: Final[Mapping[str, Entry]] = {
    **{
        f"{prefix}_mixer": _preset("mixer", wiring, f"MLP-Mixer for 32 x 32, wired {wiring}", _mixer_sizes(wiring))
        for wiring, prefix in _WIRING_PREFIX.items()
    },
    **{
        f"{prefix}_mixer-projected": _preset(
            "mixer-projected", wiring, f"the ACN authors' Mixer for 32 x 32, wired {wiring}", _MIXER | {"pool": "cls"}
        )
        for wiring, prefix in {"acn": "ac", "residual": "res"}.items()
    },
    **{
        f"{prefix}_vit": _preset("transformer", wiring, f"ViT-tiny/4 for 32 x 32, wired {wiring}", _CIFAR_VIT)
        for wiring, prefix in _WIRING_PREFIX.items()
    },
    **{
        f"{prefix}_mlp": _preset("mlp", wiring, f"MLP on each patch of 32 x 32, wired {wiring}", _MLP)
        for wiring, prefix in _WIRING_PREFIX.items()
    },
    **{
        f"{prefix}vit-{size}-16": _preset("transformer", wiring, f"ViT-{size}/16 for 224 x 224, wired {wiring}", sizes)
        for size, sizes in _VIT_16.items()
        for wiring, prefix in {"residual": "", "acn": "ac_"}.items()
    },
}


def backbone_fields(block: str, wiring: str) -> dict[str, FieldInfo]:
    """Key -> pydantic field of everything that a section with this block and wiring may set.

    A dotted block or wiring adds nothing: its keys are its own affair until it is built.

    Raises:
        SpecError: no such block or wiring.
    """
    own = (_settings_of("block", block), _settings_of("wiring", wiring))
    return dict(BackboneSettings.model_fields) | own[0].model_fields | own[1].model_fields


def validate_backbone(section: Mapping[str, Any], image_size: tuple[int, int] | None) -> dict[str, Any]:
    """The ``backbone`` section of a spec in full: block, wiring and every key, with the defaults filled in.

    Args:
        section: ``name`` (a preset, or a dotted path) or ``block`` and ``wiring``, and the keys to set.
        image_size: height and width in pixels; ``None`` leaves out the check that the patch divides them.

    Returns:
        A plain dictionary that validates to itself. A section with a dotted ``name`` is returned as it is.

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of range.
        SpecError: a key or a name is unknown, or the keys cannot work together.
    """
    name = section.get("name")
    if isinstance(name, str) and is_dotted(name):
        return dict(section)
    given = _with_preset(section)
    names = {key: given.pop(key) for key in ("name", "block", "wiring") if key in given}
    block, wiring = names["block"], names["wiring"]

    block_settings = _settings_of("block", block)
    block_part = block_settings.model_validate(_take(given, block_settings))
    wiring_settings = _settings_of("wiring", wiring)
    wiring_part = wiring_settings.model_validate(_take(given, wiring_settings))
    common = BackboneSettings.model_validate(_take(given, BackboneSettings))
    if given and not (is_dotted(block) or is_dotted(wiring)):
        key = next(iter(given))
        raise SpecError(("backbone", key), f"there is no such key; {suggest(key, backbone_fields(block, wiring))}")

    if isinstance(block_part, BlockSettings):
        block_part.check(common)
    if image_size is not None:
        _check_patch(common.patch, image_size)
    return names | common.model_dump() | block_part.model_dump() | wiring_part.model_dump() | given


def _with_preset(section: Mapping[str, Any]) -> dict[str, Any]:
    """``section`` with what its preset stands for, or as it is if it gives a block and a wiring itself."""
    name = section.get("name")
    if name is None:
        missing = [key for key in ("block", "wiring") if key not in section]
        if missing:
            raise SpecError(("backbone", missing[0]), "is missing; give block and wiring, or a name such as 'ac_mixer'")
        return dict(section)
    if not isinstance(name, str) or name not in PRESETS:
        raise SpecError(("backbone", "name"), f"unknown backbone {name!r}; {suggest(name, PRESETS)}")
    preset = PRESETS[name]
    for key, value in preset.fixed.items():
        if section.get(key, value) != value:
            raise SpecError(
                ("backbone", key),
                f"{section[key]!r}, but the name {name!r} stands for {value!r}; "
                f"leave out the name, and give block and wiring",
            )
    return {**preset.fixed, **preset.defaults, **section}


def _check_patch(patch: int, image_size: tuple[int, int]) -> None:
    height, width = image_size
    if height % patch or width % patch:
        raise SpecError(
            ("backbone", "patch"),
            f"{patch} does not divide the image of {height} x {width} pixels; "
            f"nearest: {nearest_divisors(patch, height, width)}",
        )


def _settings_of(kind: Literal["block", "wiring"], name: object) -> type[Settings]:
    """The settings of a listed block or wiring; none of its own for a dotted one."""
    lines = BLOCKS if kind == "block" else WIRINGS
    if not isinstance(name, str) or (name not in lines and not is_dotted(name)):
        raise SpecError(("backbone", kind), f"unknown {kind} {name!r}; {suggest(name, lines)}")
    return lines[name].settings if name in lines else Settings


def _take(given: dict[str, Any], settings: type[Settings]) -> dict[str, Any]:
    """Move the keys of ``settings`` out of ``given``."""
    return {key: given.pop(key) for key in list(given) if key in settings.model_fields}
