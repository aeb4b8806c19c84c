"""Qwen2-VL to Qwen3-VL and Qwen3.5, of experts too: a ViT over packed patches, a merger, a Llama-like decoder.

The vision tower reads the tokens of all images as one sequence, and their
grids say whose they are.
"""

from weft.core.backbone.family import BlockSpec, Family, Fused, Outside, Stack, register_family
from weft.core.backbone.owners import media_by_grid

FAMILY = register_family(
    Family(
        name="qwen_vl",
        model_types={
            "qwen2_vl": ("text", "vision"),
            "qwen2_5_vl": ("text", "vision"),
            "qwen3_vl": ("text", "vision"),
            "qwen3_vl_moe": ("text", "vision"),
            "qwen3_5": ("text", "vision"),
            "qwen3_5_moe": ("text", "vision"),
        },
        stacks=(
            Stack(
                tower="vision",
                layers=("model.visual.blocks", "visual.blocks"),
                blocks={
                    "attention": BlockSpec(
                        output="attn.proj",
                        source="attn",
                        before="norm1",
                        linears={
                            "query": Fused("attn.qkv", 0),
                            "key": Fused("attn.qkv", 1),
                            "value": Fused("attn.qkv", 2),
                            "output": "attn.proj",
                        },
                    ),
                    "ffn": BlockSpec(
                        output="mlp",
                        source="mlp",
                        before="norm2",
                        width=("mlp.down_proj", "mlp.linear_fc2", "mlp.fc2"),
                        linears={
                            "up": ("mlp.up_proj", "mlp.linear_fc1", "mlp.fc1"),
                            "gate": "mlp.gate_proj",
                            "down": ("mlp.down_proj", "mlp.linear_fc2", "mlp.fc2"),
                        },
                    ),
                },
                modality="vision",
                packed=True,
            ),
        ),
        towers={"vision": ("model.visual", "visual")},
        outside=(
            Outside(
                (
                    "model.visual.merger",
                    "model.visual.deepstack_merger_list",
                    "visual.merger",
                    "visual.deepstack_merger_list",
                ),
                "vision",
            ),
            Outside("lm_head", "text", "logits"),
        ),
        components={
            "vision": ("model.visual", "visual"),
            "projector": (
                "model.visual.merger",
                "model.visual.deepstack_merger_list",
                "visual.merger",
                "visual.deepstack_merger_list",
            ),
            "lm_head": "lm_head",
        },
        nested=("model.language_model", "language_model"),
        default_towers=("text",),
        owners=media_by_grid,
    )
)
