"""OPT: a decoder with BART's names; its feed-forward block sees all tokens laid flat."""

from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family

FAMILY = register_family(
    Family(
        name="opt",
        model_types={"opt": ("text",)},
        stacks=(
            Stack(
                tower="text",
                layers=("model.decoder.layers", "decoder.layers"),
                blocks={
                    "attention": BlockSpec(
                        output="self_attn.out_proj",
                        source="self_attn",
                        before="self_attn_layer_norm",
                        linears={
                            "query": "self_attn.q_proj",
                            "key": "self_attn.k_proj",
                            "value": "self_attn.v_proj",
                            "output": "self_attn.out_proj",
                        },
                    ),
                    "ffn": BlockSpec(
                        output="fc2",
                        source="fc1",
                        before="final_layer_norm",
                        linears={"up": "fc1", "down": "fc2"},
                    ),
                },
            ),
        ),
        towers={"text": ""},
        outside=(Outside("lm_head", "text", "logits"),),
        components={
            "embeddings": ("model.decoder.embed_tokens", "decoder.embed_tokens"),
            "lm_head": "lm_head",
        },
    )
)
