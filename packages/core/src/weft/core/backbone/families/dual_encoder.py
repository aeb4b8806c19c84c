"""Dual encoders: a text encoder and a vision tower of any family, with two projections."""

from weft.core.backbone.family import Family, Outside, register_family

FAMILY = register_family(
    Family(
        name="dual_encoder",
        model_types={"weft_dual_encoder": ("text",)},
        outside=(
            Outside("text_projection", "text"),
            Outside("image_projection", "vision"),
        ),
        components={
            "text": "text_model",
            "vision": "vision_tower",
            "projector": ("text_projection", "image_projection"),
            "logit_scale": "logit_scale",
        },
        nested=("text_model", "vision_tower"),
    )
)
