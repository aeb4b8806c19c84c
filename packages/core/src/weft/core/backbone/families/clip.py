"""CLIP: a text and a vision tower, norms before each sub-layer."""

from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block, Modality

TOWERS: tuple[Modality, ...] = ("text", "vision")

BLOCKS: dict[Block, BlockSpec] = {
    "attention": BlockSpec(
        output="self_attn.out_proj",
        source="self_attn",
        before="layer_norm1",
        linears={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.out_proj",
        },
    ),
    "ffn": BlockSpec(
        output="mlp",
        source="mlp",
        before="layer_norm2",
        width="mlp.fc2",
        linears={"up": "mlp.fc1", "down": "mlp.fc2"},
        behind="",
    ),
}

PLACES = tuple(
    Place(
        tower=tower,
        block="embedding",
        path=(f"{tower}_model.encoder", "encoder"),
        modality=tower,
        whole="embeddings",
        width="layers.0.self_attn.out_proj",
    )
    for tower in TOWERS
)

STACKS = (
    Stack(tower="text", layers=("text_model.encoder.layers", "encoder.layers"), blocks=BLOCKS),
    Stack(
        tower="vision",
        layers=("vision_model.encoder.layers", "encoder.layers"),
        blocks=BLOCKS,
        modality="vision",
    ),
)

FAMILY = register_family(
    Family(
        name="clip",
        model_types={
            "clip": ("text", "vision"),
            "clip_text_model": ("text",),
            "clip_vision_model": ("vision",),
        },
        stacks=STACKS,
        places=PLACES,
        towers={"text": ("text_model", ""), "vision": ("vision_model", "")},
        outside=(
            Outside("text_projection", "text"),
            Outside("visual_projection", "vision"),
        ),
        components={
            "text": "text_model",
            "vision": "vision_model",
            "projector": ("text_projection", "visual_projection"),
            "logit_scale": "logit_scale",
        },
    )
)
