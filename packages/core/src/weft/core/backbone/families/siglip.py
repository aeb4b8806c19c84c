"""SigLIP, and SigLIP 2 of fixed and of native resolution (NaFlex): CLIP's sites, another head.

Patches of native resolution are padded to one number, so that a row of the vision tower is an image in both.
"""

from dataclasses import replace

from weft.core.backbone.families.clip import FAMILY as CLIP
from weft.core.backbone.families.clip import types
from weft.core.backbone.family import Outside, register_family

FAMILY = register_family(
    replace(
        CLIP,
        name="siglip",
        model_types=types("siglip"),
        outside=(Outside(("text_model.head", "head"), "text"), Outside("vision_model.head", "vision")),
        components={
            **CLIP.components,
            "projector": ("text_model.head", "vision_model.head"),
            "logit_scale": ("logit_scale", "logit_bias"),
        },
    )
)
NAFLEX = register_family(
    replace(
        FAMILY,
        name="siglip2",
        model_types=types("siglip2"),
        places=FAMILY.places[:1],
        outside=(*FAMILY.outside, Outside(("vision_model.embeddings", "embeddings"), "vision")),
    )
)
