"""ResNet as a vision tower: features for others, no site of its own (convolutions have no token axis)."""

from weft.core.backbone.family import Family, register_family

FAMILY = register_family(Family(name="resnet", model_types={"resnet": ("vision",)}, towers={"vision": ""}))
