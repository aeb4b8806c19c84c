"""PaliGemma and Gemma 3: a SigLIP tower and a Gemma decoder, joined by a projector."""

from weft.core.backbone.declaring import vision_language
from weft.core.backbone.family import register_family
from weft.core.backbone.owners import equal_media

FAMILY = register_family(
    vision_language(
        "paligemma",
        "paligemma gemma3",
        vision="vision_tower",
        projector=("multi_modal_projector",),
        owners=equal_media,
    )
)
