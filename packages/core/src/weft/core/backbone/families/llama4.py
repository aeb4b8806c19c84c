"""Llama 4's decoder: some feed-forward blocks are experts, which lay all tokens flat and return them so."""

from weft.core.backbone.families.llama import BLOCKS
from weft.core.backbone.families.llama import FAMILY as LLAMA
from weft.core.backbone.family import BlockSpec, Family, Stack, register_family

FAMILY = register_family(
    Family(
        name="llama4",
        model_types={"llama4_text": ("text",)},
        stacks=(
            Stack(
                tower="text",
                layers=("model.layers", "layers"),
                blocks={
                    "attention": BLOCKS["attention"],
                    "ffn": BlockSpec(
                        output="feed_forward",
                        source=("feed_forward.router", "feed_forward"),
                        before="post_attention_layernorm",
                        width="post_attention_layernorm",
                        linears={
                            "up": "feed_forward.up_proj",
                            "gate": "feed_forward.gate_proj",
                            "down": "feed_forward.down_proj",
                        },
                    ),
                },
            ),
        ),
        towers=LLAMA.towers,
        outside=LLAMA.outside,
        components=LLAMA.components,
    )
)
