"""VL-BART and VL-T5: a language model and, inside or outside, a vision tower of any family."""

from weft.core.backbone.family import Family, Outside, Place, register_family

FAMILY = register_family(
    Family(
        name="visual_seq2seq",
        model_types={"weft_visual_seq2seq": ("text",)},
        outside=(Outside("visual_embedding", "vision"),),
        components={"visual_embedding": "visual_embedding", "vision": "vision_tower"},
        nested=("language_model", "vision_tower"),
        places=(Place(tower="text", name="encoder", block="embedding", path="encoder_prompt"),),
        default_towers=("text",),
    )
)
