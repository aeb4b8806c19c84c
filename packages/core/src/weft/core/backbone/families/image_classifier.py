"""Image classifiers: a vision model of any family, and a head for each task."""

from weft.core.backbone.family import Family, register_family

FAMILY = register_family(
    Family(
        name="image_classifier",
        model_types={"weft_image_classifier": ("vision",)},
        components={"vision": "vision_tower", "heads": "heads"},
        nested=("vision_tower",),
        optional_towers=("vision",),
    )
)
