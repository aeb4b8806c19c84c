"""Layers of unknown types, read by their structure: sub-layers by the names of the field, their wiring by a probe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import nn

from weft.core.backbone.family import BlockSpec
from weft.core.backbone.layer_probe import probe
from weft.core.backbone.module_paths import at
from weft.core.backbone.sites import Block
from weft.core.errors import BackboneError

NAMES: Mapping[Block, tuple[str, ...]] = {
    "attention": ("self_attn", "attn", "attention", "self_attention", "linear_attn", "conv"),
    "cross_attention": ("cross_attn", "encoder_attn", "crossattention"),
    "ffn": ("mlp", "ffn", "feed_forward", "moe", "block_sparse_moe"),
}
_ATTENTION_ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("q_proj", "query", "q"),
    "key": ("k_proj", "key", "k"),
    "value": ("v_proj", "value", "v"),
    "output": ("o_proj", "out_proj", "proj", "projection_layer", "projection", "dense"),
}
ROLES: Mapping[Block, Mapping[str, tuple[str, ...]]] = {
    "attention": _ATTENTION_ROLES,
    "cross_attention": _ATTENTION_ROLES,
    "ffn": {
        "up": ("up_proj", "fc1", "linear_fc1", "lin1", "dense_h_to_4h", "w3"),
        "gate": ("gate_proj", "w1"),
        "down": ("down_proj", "fc2", "linear_fc2", "lin2", "dense_4h_to_h", "w2"),
    },
}


def sublayers(layer: nn.Module) -> dict[Block, str]:
    """The children of a module that are named as sub-layers are."""
    children = {
        name: child
        for name, child in layer.named_children()
        if name in NAMES["ffn"] or any(isinstance(each, nn.Linear) for each in child.modules())
    }
    found = {
        block: next((name for name in names if name in children), None) for block, names in NAMES.items()
    }
    return {block: name for block, name in found.items() if name is not None}


def read_layer(layer: nn.Module) -> dict[Block, BlockSpec]:
    """The sub-layers of a layer of unknown type; it is only looked at, and may be on the meta device.

    Raises:
        BackboneError: If it has none, or silencing them does not silence the layer.
    """
    named = sublayers(layer)
    if not named:
        raise BackboneError(
            f"none of its children ({_children(layer)}) is named as an attention or a feed-forward"
        )
    width = _width(layer, named)
    flows = probe(layer, named, width[1])
    return {
        block: BlockSpec(
            output=flows[name].output,
            source=name,
            before=flows[name].stream,
            width=width[0],
            linears=_linears(layer, block, name),
        )
        for block, name in named.items()
    }


def is_packed(layer: nn.Module) -> bool:
    """Whether the layer's attention is told where each row begins, because all are concatenated."""
    attention = sublayers(layer).get("attention")
    return (
        attention is not None
        and "cu_seqlens" in inspect.signature(type(getattr(layer, attention)).forward).parameters
    )


def _linears(layer: nn.Module, block: Block, sublayer: str) -> dict[str, str]:
    """The maps of a sub-layer whose role its name tells; fused maps and those of experts have none."""
    module = getattr(layer, sublayer)
    return {
        role: f"{sublayer}.{name}"
        for role, names in ROLES[block].items()
        for name in names
        if isinstance(getattr(module, name, None), nn.Linear)
    }


def _width(layer: nn.Module, named: Mapping[Block, str]) -> tuple[str, int]:
    """A module whose width is the residual stream's, and that width."""
    for name, child in layer.named_children():
        weight = getattr(child, "weight", None)
        if name not in named.values() and weight is not None and weight.dim() == 1:
            return name, int(weight.shape[0])
    for block, name in named.items():
        for role, path in _linears(layer, block, name).items():
            if role in ("output", "down"):
                return path, int(at(layer, path).out_features)
    raise BackboneError(
        f"the width of its residual stream cannot be read from its children ({_children(layer)})"
    )


def _children(layer: nn.Module) -> str:
    return ", ".join(name for name, _ in layer.named_children()) or "none"
