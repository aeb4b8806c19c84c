"""GIT: BERT's layers over the tokens of an image and of its text, after CLIP's vision tower."""

from weft.core.backbone.declaring import inside
from weft.core.backbone.families.bert import BLOCKS
from weft.core.backbone.families.clip import BLOCKS as VISION
from weft.core.backbone.family import Family, Outside, Stack, register_family

_ROOTS = ("git", "")
_TOWER = inside(_ROOTS, "image_encoder")

FAMILY = register_family(
    Family(
        name="git",
        model_types={"git": ("text", "vision"), "git_vision_model": ("vision",)},
        stacks=(
            Stack(
                "text",
                inside(_ROOTS, "encoder.layer"),
                {block: BLOCKS[block] for block in ("attention", "ffn")},
            ),
            Stack(
                "vision",
                inside((*_TOWER, ""), "vision_model.encoder.layers"),
                VISION,
                modality="vision",
            ),
        ),
        towers={
            "text": inside(_ROOTS, ("embeddings", "encoder")),
            "vision": (*_TOWER, "vision_model"),
        },
        outside=(Outside(inside(_ROOTS, "visual_projection"), "vision"), Outside("output", "text")),
        components={
            "vision": (*_TOWER, "vision_model"),
            "projector": inside(_ROOTS, "visual_projection"),
            "embeddings": inside(_ROOTS, "embeddings.word_embeddings"),
            "head": "output",
        },
    )
)
