"""ViT: norms before each sub-layer; two namings, of releases before and after one attention for all models."""

from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.sites import Block

BLOCKS: dict[Block, BlockSpec] = {
    "attention": BlockSpec(
        output=("attention.o_proj", "attention.output.dense"),
        source="attention",
        before="layernorm_before",
        linears={
            "query": ("attention.q_proj", "attention.attention.query"),
            "key": ("attention.k_proj", "attention.attention.key"),
            "value": ("attention.v_proj", "attention.attention.value"),
            "output": ("attention.o_proj", "attention.output.dense"),
        },
    ),
    "ffn": BlockSpec(
        output=("mlp", "output.dense"),
        source=("mlp", "intermediate"),
        before="layernorm_after",
        width=("mlp.fc2", "output.dense"),
        linears={"up": ("mlp.fc1", "intermediate.dense"), "down": ("mlp.fc2", "output.dense")},
    ),
}

FAMILY = register_family(
    Family(
        name="vit",
        model_types={"vit": ("vision",)},
        stacks=(
            Stack(
                tower="vision",
                layers=("vit.layers", "vit.encoder.layer", "layers", "encoder.layer"),
                blocks=BLOCKS,
                modality="vision",
            ),
        ),
        towers={"vision": ("vit", "")},
        outside=(Outside(("classifier", "vit.pooler", "pooler"), "vision"),),
        components={"embeddings": ("vit.embeddings", "embeddings"), "head": "classifier"},
    )
)
