"""SigLIP, and SigLIP 2 of fixed and of native resolution (NaFlex): CLIP's sites, another head.

Patches of native resolution are padded to one number, so that a row of the vision tower is an image in both.
"""

from weft.core.backbone.families.clip import PLACES, STACKS
from weft.core.backbone.family import Family, Outside, register_family

FAMILY = register_family(
    Family(
        name="siglip",
        model_types={
            "siglip": ("text", "vision"),
            "siglip_text_model": ("text",),
            "siglip_vision_model": ("vision",),
        },
        stacks=STACKS,
        places=PLACES,
        towers={"text": ("text_model", ""), "vision": ("vision_model", "")},
        outside=(
            Outside(("text_model.head", "head"), "text"),
            Outside("vision_model.head", "vision"),
        ),
        components={
            "text": "text_model",
            "vision": "vision_model",
            "projector": ("text_model.head", "vision_model.head"),
            "logit_scale": ("logit_scale", "logit_bias"),
        },
    )
)

NAFLEX = register_family(
    Family(
        name="siglip2",
        model_types={
            "siglip2": ("text", "vision"),
            "siglip2_text_model": ("text",),
            "siglip2_vision_model": ("vision",),
        },
        stacks=FAMILY.stacks,
        places=tuple(place for place in PLACES if place.tower == "text"),
        towers=FAMILY.towers,
        outside=(*FAMILY.outside, Outside(("vision_model.embeddings", "embeddings"), "vision")),
        components=FAMILY.components,
    )
)
