"""Idefics3 and SmolVLM: a ViT with SigLIP's sites and a Llama decoder, joined by a connector."""

from weft.core.backbone.declaring import vision_language
from weft.core.backbone.families.clip import BLOCKS
from weft.core.backbone.family import register_family
from weft.core.backbone.owners import equal_media

FAMILY = register_family(
    vision_language(
        "idefics3",
        "idefics3 smolvlm",
        vision="vision_model",
        projector=("connector",),
        language="text_model",
        owners=equal_media,
        blocks=BLOCKS,
        layers="encoder.layers",
    )
)
