"""LLaVA 1.5, NeXT, NeXT-Video and OneVision: a vision tower and a decoder of any family, joined by a projector."""

from weft.core.backbone.declaring import vision_language
from weft.core.backbone.family import register_family
from weft.core.backbone.owners import media_by_tiles

FAMILY = register_family(
    vision_language(
        "llava",
        "llava llava_next llava_next_video llava_onevision",
        vision="vision_tower",
        projector=("multi_modal_projector", "image_newline"),
        owners=media_by_tiles,
    )
)
