"""BLIP-2 and InstructBLIP: BLIP's ViT, a Q-Former that joins it to a language model, and that model."""

from weft.core.backbone.families.blip import VISION_BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.owners import equal_media


def _attention(name: str, *, optional: bool = False) -> BlockSpec:
    return BlockSpec(
        output=f"{name}.output.dense",
        source=name,
        linears={
            "query": f"{name}.attention.query",
            "key": f"{name}.attention.key",
            "value": f"{name}.attention.value",
            "output": f"{name}.output.dense",
        },
        optional=optional,
    )


FAMILY = register_family(
    Family(
        name="blip2",
        model_types={"blip-2": ("vision", "qformer"), "instructblip": ("vision", "qformer")},
        stacks=(
            Stack(
                tower="vision", layers="vision_model.encoder.layers", blocks=VISION_BLOCKS, modality="vision"
            ),
            Stack(
                tower="qformer",
                layers="qformer.encoder.layer",
                blocks={
                    "attention": _attention("attention"),
                    "cross_attention": _attention("crossattention", optional=True),
                    "ffn": BlockSpec(
                        output="output_query.dense",
                        source="intermediate_query",
                        linears={"up": "intermediate_query.dense", "down": "output_query.dense"},
                    ),
                },
                modality="cross",
            ),
        ),
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
