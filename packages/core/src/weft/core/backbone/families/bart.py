"""BART, with the norm after each sum, and mBART, with one before each sub-layer; the feed-forward block is inline."""

from dataclasses import replace
from typing import Any

from weft.core.backbone.declaring import ROOTS, attention, inside
from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block

_ATTENTION = attention("self_attn", norm="self_attn_layer_norm")
_CROSS = attention("encoder_attn", norm="encoder_attn_layer_norm")
_FFN = BlockSpec(output="fc2", source="fc1", linears={"up": "fc1", "down": "fc2"}, norm="final_layer_norm")
_ENCODER, _DECODER = inside(ROOTS, "encoder"), inside(ROOTS, "decoder")


def _stacks(self_attention: BlockSpec, cross: BlockSpec, ffn: BlockSpec) -> tuple[Stack, ...]:
    own: dict[Block, BlockSpec] = {"attention": self_attention, "ffn": ffn}
    both: dict[Block, BlockSpec] = {"attention": self_attention, "cross_attention": cross, "ffn": ffn}
    return (
        Stack("text", inside(_ENCODER, "layers"), own, "encoder"),
        Stack("text", inside(_DECODER, "layers"), both, "decoder"),
    )


_WHOLE: dict[str, Any] = {"whole": "tokens", "width": "embed_tokens", "positions": "embed_positions"}

FAMILY = register_family(
    Family(
        name="bart",
        model_types={"bart": ("text",)},
        stacks=_stacks(_ATTENTION, _CROSS, _FFN),
        towers={"text": ""},
        places=(
            Place("text", "embedding", _ENCODER, "encoder", reader=_DECODER, **_WHOLE),
            Place("text", "embedding", _DECODER, "decoder", **_WHOLE),
        ),
        outside=(Outside("lm_head", "text", "logits"),),
        components={
            "embeddings": inside(ROOTS, "shared"),
            "positions": inside(inside(ROOTS, ("encoder", "decoder")), "embed_positions"),
            "lm_head": "lm_head",
        },
    )
)


def _norm_first(spec: BlockSpec) -> BlockSpec:
    # The sum is held by a module of its own after the last sub-layer alone, where it is what the layer returns.
    return replace(spec, before=spec.norm, behind="" if spec is _FFN else None, norm=None)


MBART = register_family(
    replace(
        FAMILY,
        model_types={"mbart": ("text",)},
        stacks=_stacks(*map(_norm_first, (_ATTENTION, _CROSS, _FFN))),
    )
)
