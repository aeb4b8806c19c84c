"""CLIP: a text and a vision tower, norms before each sub-layer."""

from weft.core.backbone.declaring import attention, feed_forward, inside
from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block, Modality

BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention("self_attn", before="layer_norm1"),
    "ffn": feed_forward("mlp", up="fc1", down="fc2", before="layer_norm2", behind=""),
}
_TOWERS: tuple[Modality, ...] = ("text", "vision")


def types(name: str) -> dict[str, tuple[str, ...]]:
    """Types of a model of both towers, which is called so, and of each tower alone."""
    return {name: ("text", "vision"), f"{name}_text_model": ("text",), f"{name}_vision_model": ("vision",)}


FAMILY = register_family(
    Family(
        name="clip",
        model_types=types("clip"),
        stacks=tuple(
            Stack(tower, inside((f"{tower}_model", ""), "encoder.layers"), BLOCKS, modality=tower)
            for tower in _TOWERS
        ),
        places=tuple(
            Place(
                tower=tower,
                block="embedding",
                path=inside((f"{tower}_model", ""), "encoder"),
                modality=tower,
                whole="embeddings",
                width="layers.0.self_attn.out_proj",
            )
            for tower in _TOWERS
        ),
        towers={tower: (f"{tower}_model", "") for tower in _TOWERS},
        outside=(Outside("text_projection", "text"), Outside("visual_projection", "vision")),
        components={
            "text": "text_model",
            "vision": "vision_model",
            "projector": ("text_projection", "visual_projection"),
            "logit_scale": "logit_scale",
        },
    )
)
