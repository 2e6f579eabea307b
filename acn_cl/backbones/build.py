"""From a spec's ``backbone`` section to the network."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from acn_cl.backbones import somebodys
from acn_cl.backbones.backbone import Backbone
from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.embedding import PatchEmbedding, count_tokens
from acn_cl.backbones.layered import LayeredBackbone
from acn_cl.backbones.presets import BLOCKS, WIRINGS, backbone_fields, validate_backbone
from acn_cl.backbones.whole import WholeNetwork
from acn_cl.backbones.wirings.base import Wiring
from acn_cl.errors import UserError
from acn_cl.tables import Entry, is_dotted, resolve


def build_backbone(name: str | None = None, *, image_size: tuple[int, int], channels: int, **settings: Any) -> Backbone:
    """The backbone that a spec's section describes, freshly initialised from torch's global generator.

    >>> build_backbone("ac_mixer", image_size=(32, 32), channels=3, depth=5).depth
    5

    Args:
        name: a preset (``acn-cl list backbones``), or the dotted path of a class or function that makes an
            ``nn.Module``, called with ``settings``; ``None`` when ``settings`` give ``block`` and ``wiring``.
        image_size: height and width in pixels.
        channels: colour channels of an image.
        settings: the other keys of the section.

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of range.
        UserError: a key or a name is unknown, or the keys cannot work together.
    """
    if name is not None and is_dotted(name):
        return _somebodys_network(name, settings, image_size, channels)
    section = validate_backbone(settings if name is None else {"name": name, **settings}, image_size)
    return _layered(section, image_size, channels)


def _somebodys_network(name: str, options: Mapping[str, Any], image_size: tuple[int, int], channels: int) -> Backbone:
    module = somebodys.call(name, options)
    if isinstance(module, Backbone):
        return module
    if not isinstance(module, nn.Module):
        raise UserError(f"backbone.name: {name} made a {type(module).__name__}, not an nn.Module")
    return WholeNetwork(module, image_size=image_size, channels=channels)


def _layered(section: Mapping[str, Any], image_size: tuple[int, int], channels: int) -> LayeredBackbone:
    depth, width, patch, pool = (section[key] for key in ("depth", "width", "patch", "pool"))
    block_options, wiring_options = _options(section)
    wiring: Wiring = _make(Wiring, section["wiring"], WIRINGS, {"depth": depth, "width": width, **wiring_options})
    block_options |= {
        "width": width,
        "tokens": count_tokens(image_size, patch, class_token=pool == "cls"),
        "inner_skips": wiring.inner_skips,
    }
    blocks: list[Block] = [_make(Block, section["block"], BLOCKS, block_options) for _ in range(depth)]
    embedding = PatchEmbedding(
        image_size, channels, patch, width, class_token=pool == "cls", positions=blocks[0].needs_positions
    )
    return LayeredBackbone(embedding, blocks, wiring, width=width, pool=pool)


def _options(section: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of ``section`` is the block's own, and what the wiring's.

    Listed ones name their keys in the tables. A key in no table goes to the dotted one, where both are dotted to the
    block if it takes it; whoever gets a key that it does not take refuses it by name when it is called.
    """
    block, wiring = section["block"], section["wiring"]
    known = {"name", "block", "wiring", *backbone_fields(block, wiring)}
    left = {key: value for key, value in section.items() if key not in known}
    if not is_dotted(wiring):
        of_block = left if is_dotted(block) else _listed(BLOCKS[block], section)
        return of_block, _listed(WIRINGS[wiring], section)
    if not is_dotted(block):
        return _listed(BLOCKS[block], section), left
    taken = somebodys.accepted(block, left)
    return {key: left.pop(key) for key in taken}, left


def _listed(entry: Entry, section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: section[key] for key in entry.settings.model_fields}


def _make(kind: type, name: str, lines: Mapping[str, Entry], options: Mapping[str, Any]) -> Any:
    """The block or wiring called ``name``, listed or dotted."""
    if not is_dotted(name):
        return resolve(lines[name].target)(**options)
    made = somebodys.call(name, options)
    if not isinstance(made, kind):
        raise UserError(f"{name} made a {type(made).__name__}; it must be a {kind.__module__}:{kind.__name__}")
    return made
