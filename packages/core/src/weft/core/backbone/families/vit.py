"""ViT and DINOv2: norms before each sub-layer; two namings, of releases before and after one attention for all models.

The sub-layers of DINOv2 end in a learned scale, whose output is the sub-layer's.
"""

from dataclasses import replace

from weft.core.backbone.declaring import attention, feed_forward, inside
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.module_paths import Paths
from weft.core.backbone.sites import Block

BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention(
        "attention",
        query=("q_proj", "attention.query"),
        key=("k_proj", "attention.key"),
        value=("v_proj", "attention.value"),
        output=("o_proj", "output.dense"),
        before="layernorm_before",
    ),
    "ffn": BlockSpec(
        output=("mlp", "output.dense"),
        source=("mlp", "intermediate"),
        before="layernorm_after",
        width=("mlp.fc2", "output.dense"),
        linears={"up": ("mlp.fc1", "intermediate.dense"), "down": ("mlp.fc2", "output.dense")},
    ),
}


def _family(name: str, layers: Paths, blocks: dict[Block, BlockSpec], outside: Paths) -> Family:
    roots = (name, "")
    return Family(
        name=name,
        model_types={name: ("vision",)},
        stacks=(Stack("vision", inside(roots, layers), blocks, modality="vision"),),
        towers={"vision": roots},
        outside=(Outside(outside, "vision"),),
        components={"embeddings": inside(roots, "embeddings"), "head": "classifier"},
    )


FAMILY = register_family(
    _family("vit", ("layers", "encoder.layer"), BLOCKS, ("classifier", "vit.pooler", "pooler"))
)
DINOV2 = register_family(
    _family(
        "dinov2",
        "encoder.layer",
        {
            "attention": replace(
                BLOCKS["attention"], output="layer_scale1", before="norm1", width=BLOCKS["attention"].output
            ),
            "ffn": feed_forward(
                "mlp",
                up=("fc1", "weights_in", "up_proj"),
                gate="gate_proj",
                down=("fc2", "weights_out", "down_proj"),
                output="layer_scale2",
                before="norm2",
            ),
        },
        "classifier",
    )
)
