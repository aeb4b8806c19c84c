"""Shorthands for what many families declare alike: an attention, a feed-forward block, a decoder, a joined model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from weft.core.backbone.family import BlockSpec, Family, Fused, Outside, Place, Stack
from weft.core.backbone.module_paths import Paths, alternatives
from weft.core.backbone.owners import OwnersRule
from weft.core.backbone.sites import Block

Blocks = Mapping[Block, BlockSpec] | Callable[[nn.Module], Mapping[Block, BlockSpec]]
ROOTS = ("model", "")


def inside(outer: Paths, inner: Paths) -> tuple[str, ...]:
    """Every path below every other one; the empty path is the model itself."""
    return tuple(
        f"{one}.{each}" if one else each for one in alternatives(outer) for each in alternatives(inner)
    )


def attention(
    module: Paths,
    *,
    query: Paths = "q_proj",
    key: Paths = "k_proj",
    value: Paths = "v_proj",
    output: Paths = "out_proj",
    fused: Paths | None = None,
    **rest: Any,
) -> BlockSpec:
    """An attention that is one module, from the layer, with its maps inside, whose paths are from the attention.

    `fused` is the one map that gives queries, keys and values, instead of three; `rest` are other fields of the block.
    """
    maps: dict[str, Paths | Fused] = {
        role: inside(module, path) if fused is None else Fused(inside(module, fused), index)
        for index, (role, path) in enumerate({"query": query, "key": key, "value": value}.items())
    }
    maps["output"] = inside(module, output)
    return BlockSpec(**{"output": maps["output"], "source": module, "linears": maps, **rest})


def feed_forward(
    module: Paths, *, up: Paths, down: Paths, gate: Paths | None = None, **rest: Any
) -> BlockSpec:
    """A feed-forward block that is one module, from the layer, with its maps inside, whose paths are from the block.

    The activation of `gate`, where there is one, multiplies what `up` gives; `rest` are other fields of the block.
    """
    maps = {"up": up, "gate": gate, "down": down}
    linears = {role: inside(module, path) for role, path in maps.items() if path is not None}
    return BlockSpec(
        **{"output": module, "source": module, "width": linears["down"], "linears": linears, **rest}
    )


def decoder(
    name: str, model_types: str, blocks: Blocks, *, root: Paths = ROOTS, place: Place | None = None
) -> Family:
    """A text decoder with a map onto the vocabulary, for types with blanks between.

    `root` holds the layers and the embedding of tokens; a prompt goes where `place` says.
    """
    return Family(
        name=name,
        model_types=dict.fromkeys(model_types.split(), ("text",)),
        stacks=(Stack(tower="text", layers=inside(root, "layers"), blocks=blocks),),
        places=() if place is None else (place,),
        towers={"text": ""},
        outside=(Outside("lm_head", "text", "logits"),),
        components={"embeddings": inside(root, "embed_tokens"), "lm_head": "lm_head"},
    )


def vision_language(
    name: str,
    model_types: str,
    *,
    vision: str,
    projector: tuple[str, ...],
    owners: OwnersRule,
    language: str = "language_model",
    blocks: Blocks | None = None,
    layers: str = "",
    packed: bool = False,
) -> Family:
    """A decoder of another family that reads images through a projector, behind a head onto the vocabulary.

    Args:
        name: Name of the family.
        model_types: Its types, with blanks between.
        vision: The vision tower.
        projector: What joins the two: modules, whose maps may be adapted, and parameters.
        owners: Rule by which images belong to rows.
        language: The decoder.
        blocks: The sub-layers of the vision tower, if it is of no other family.
        layers: Its layers then, from the tower.
        packed: Whether its tokens are packed then.
    """
    tower = inside(ROOTS, vision)
    joins = inside(ROOTS, projector)
    own = blocks is not None
    stack = Stack("vision", inside(tower, layers), blocks or {}, modality="vision", packed=packed)
    return Family(
        name=name,
        model_types=dict.fromkeys(model_types.split(), ("text", "vision")),
        stacks=(stack,) if own else (),
        towers={"vision": tower} if own else {},
        outside=(Outside(joins, "vision"), Outside("lm_head", "text", "logits")),
        components={"vision": tower, "projector": joins, "lm_head": "lm_head"},
        nested=(*inside(ROOTS, language), *(() if own else tower)),
        default_towers=("text",),
        owners=owners,
    )
