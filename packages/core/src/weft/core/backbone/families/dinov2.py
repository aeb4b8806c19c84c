"""DINOv2: a ViT whose sub-layers end in a learned scale; the scale's output is the sub-layer's."""

from weft.core.backbone.families.vit import BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family

FAMILY = register_family(
    Family(
        name="dinov2",
        model_types={"dinov2": ("vision",)},
        stacks=(
            Stack(
                tower="vision",
                layers=("dinov2.encoder.layer", "encoder.layer"),
                blocks={
                    "attention": BlockSpec(
                        output="layer_scale1",
                        source="attention",
                        width=("attention.o_proj", "attention.output.dense"),
                        linears=BLOCKS["attention"].linears,
                    ),
                    "ffn": BlockSpec(
                        output="layer_scale2",
                        source="mlp",
                        width=("mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
                        linears={
                            "up": ("mlp.fc1", "mlp.weights_in", "mlp.up_proj"),
                            "gate": "mlp.gate_proj",
                            "down": ("mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
                        },
                    ),
                },
                modality="vision",
            ),
        ),
        towers={"vision": ("dinov2", "")},
        outside=(Outside("classifier", "vision"),),
        components={"embeddings": ("dinov2.embeddings", "embeddings"), "head": "classifier"},
    )
)
