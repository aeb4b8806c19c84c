"""Idefics3 and SmolVLM: a ViT with SigLIP's sites and a Llama decoder, joined by a connector."""

from weft.core.backbone.families.clip import BLOCKS
from weft.core.backbone.family import Family, Outside, Stack, register_family
from weft.core.backbone.owners import equal_media

FAMILY = register_family(
    Family(
        name="idefics3",
        model_types={"idefics3": ("text", "vision"), "smolvlm": ("text", "vision")},
        stacks=(
            Stack(
                tower="vision",
                layers=("model.vision_model.encoder.layers", "vision_model.encoder.layers"),
                blocks=BLOCKS,
                modality="vision",
            ),
        ),
        towers={"vision": ("model.vision_model", "vision_model")},
        outside=(
            Outside(("model.connector", "connector"), "vision"),
            Outside("lm_head", "text", "logits"),
        ),
        components={
            "vision": ("model.vision_model", "vision_model"),
            "projector": ("model.connector", "connector"),
            "lm_head": "lm_head",
        },
        nested=("model.text_model", "text_model"),
        default_towers=("text",),
        owners=equal_media,
    )
)
