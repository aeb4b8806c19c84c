"""SigLIP and the SigLIP 2 checkpoints of fixed resolution: CLIP's sites, another head."""

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
