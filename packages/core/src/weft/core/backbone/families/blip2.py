"""BLIP-2 and InstructBLIP: BLIP's ViT, a Q-Former that joins it to a language model, and that model."""

from typing import Any

from weft.core.backbone.declaring import attention
from weft.core.backbone.families.blip import VISION
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.owners import equal_media
from weft.core.backbone.sites import Block

_INNER: dict[str, Any] = {
    **{role: f"attention.{role}" for role in ("query", "key", "value")},
    "output": "output.dense",
}
_QFORMER: dict[Block, BlockSpec] = {
    "attention": attention("attention", **_INNER),
    "cross_attention": attention("crossattention", **_INNER, optional=True),
    "ffn": BlockSpec(
        output="output_query.dense",
        source="intermediate_query",
        linears={"up": "intermediate_query.dense", "down": "output_query.dense"},
    ),
}

FAMILY = register_family(
    Family(
        name="blip2",
        model_types=dict.fromkeys(("blip-2", "instructblip"), ("vision", "qformer")),
        stacks=(VISION, Stack("qformer", "qformer.encoder.layer", _QFORMER, modality="cross")),
        towers={"vision": "vision_model", "qformer": "qformer"},
        outside=(Outside(("qformer", "language_projection"), "cross"),),
        components={
            "vision": "vision_model",
            "qformer": ("qformer", "query_tokens"),
            "projector": "language_projection",
        },
        nested=("language_model",),
        default_towers=("text",),
        owners=equal_media,
    )
)
