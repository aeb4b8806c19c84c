"""PaliGemma and Gemma 3: a SigLIP tower and a Gemma decoder, joined by a projector."""

from weft.core.backbone.family import Family, Outside, register_family
from weft.core.backbone.owners import equal_media

FAMILY = register_family(
    Family(
        name="paligemma",
        model_types={"paligemma": ("text", "vision"), "gemma3": ("text", "vision")},
        outside=(
            Outside(("model.multi_modal_projector", "multi_modal_projector"), "vision"),
            Outside("lm_head", "text", "logits"),
        ),
        components={
            "vision": ("model.vision_tower", "vision_tower"),
            "projector": ("model.multi_modal_projector", "multi_modal_projector"),
            "lm_head": "lm_head",
        },
        nested=("model.language_model", "language_model", "model.vision_tower", "vision_tower"),
        default_towers=("text",),
        owners=equal_media,
    )
)
