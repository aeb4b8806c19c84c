"""Gemma decoders: from Gemma 2 on, a norm before and another after each sub-layer; the latter's output is the site.

Gemma 1 has Llama's layers. Some layers of Gemma 4 add features of each token behind both sub-layers, which are no site.
"""

from weft.core.backbone.families.llama import BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family

FAMILY = register_family(
    Family(
        name="gemma",
        model_types={"gemma2": ("text",), "gemma3_text": ("text",), "gemma4_text": ("text",)},
        stacks=(
            Stack(
                tower="text",
                layers=("model.layers", "layers"),
                blocks={
                    "attention": BlockSpec(
                        output="post_attention_layernorm",
                        source="self_attn",
                        before="input_layernorm",
                        width="self_attn.o_proj",
                        linears=BLOCKS["attention"].linears,
                    ),
                    "ffn": BlockSpec(
                        output="post_feedforward_layernorm",
                        source="mlp",
                        before="pre_feedforward_layernorm",
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

GEMMA_1 = register_family(
    Family(
        name="gemma1",
        model_types={"gemma": ("text",)},
        stacks=(Stack(tower="text", layers=("model.layers", "layers"), blocks=BLOCKS),),
        towers=FAMILY.towers,
        outside=FAMILY.outside,
        components=FAMILY.components,
    )
)
