"""LLaVA 1.5, NeXT, NeXT-Video and OneVision: a vision tower and a decoder of any family, joined by a projector."""

from weft.core.backbone.family import Family, Outside, register_family
from weft.core.backbone.owners import media_by_tiles

FAMILY = register_family(
    Family(
        name="llava",
        model_types={
            "llava": ("text", "vision"),
            "llava_next": ("text", "vision"),
            "llava_next_video": ("text", "vision"),
            "llava_onevision": ("text", "vision"),
        },
        outside=(
            Outside(("model.multi_modal_projector", "multi_modal_projector"), "vision"),
            Outside("lm_head", "text", "logits"),
        ),
        components={
            "vision": ("model.vision_tower", "vision_tower"),
            "projector": (
                "model.multi_modal_projector",
                "multi_modal_projector",
                "model.image_newline",
                "image_newline",
            ),
            "lm_head": "lm_head",
        },
        nested=("model.language_model", "language_model", "model.vision_tower", "vision_tower"),
        default_towers=("text",),
        owners=media_by_tiles,
    )
)
