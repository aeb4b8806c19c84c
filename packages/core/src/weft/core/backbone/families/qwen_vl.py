"""Qwen2-VL to Qwen3-VL and Qwen3.5, of experts too: a ViT over packed patches, a merger, a Llama-like decoder.

The vision tower reads the tokens of all images as one sequence, and their
grids say whose they are.
"""

from weft.core.backbone.declaring import attention, feed_forward, vision_language
from weft.core.backbone.family import BlockSpec, register_family
from weft.core.backbone.owners import media_by_grid
from weft.core.backbone.sites import Block

_BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention("attn", fused="qkv", output="proj", before="norm1"),
    "ffn": feed_forward(
        "mlp",
        up=("up_proj", "linear_fc1", "fc1"),
        gate="gate_proj",
        down=("down_proj", "linear_fc2", "fc2"),
        before="norm2",
    ),
}

FAMILY = register_family(
    vision_language(
        "qwen_vl",
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe",
        vision="visual",
        projector=("visual.merger", "visual.deepstack_merger_list"),
        owners=media_by_grid,
        blocks=_BLOCKS,
        layers="blocks",
        packed=True,
    )
)
