"""Gemma 2 and 3 decoders: a norm before and another after each sub-layer; the latter's output is the sub-layer's."""

from weft.core.backbone.families.llama import BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family

FAMILY = register_family(
    Family(
        name="gemma",
        model_types={"gemma2": ("text",), "gemma3_text": ("text",)},
        stacks=(
            Stack(
                tower="text",
                layers=("model.layers", "layers"),
                blocks={
                    "attention": BlockSpec(
                        output="post_attention_layernorm",
                        source="self_attn",
                        width="self_attn.o_proj",
                        linears=BLOCKS["attention"].linears,
                    ),
                    "ffn": BlockSpec(
                        output="post_feedforward_layernorm",
                        source="mlp",
                        width="mlp.down_proj",
                        linears=BLOCKS["ffn"].linears,
                    ),
                },
            ),
        ),
        towers={"text": ""},
        outside=(Outside("lm_head", "text", "logits"),),
        components={"embeddings": ("model.embed_tokens", "embed_tokens"), "lm_head": "lm_head"},
    )
)
