"""BART, with the norm after each sum, and mBART, with one before each sub-layer; the feed-forward block is inline."""

from dataclasses import replace

from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family

_ATTENTION = BlockSpec(
    output="self_attn.out_proj",
    source="self_attn",
    linears={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.out_proj",
    },
    norm="self_attn_layer_norm",
)
_CROSS = BlockSpec(
    output="encoder_attn.out_proj",
    source="encoder_attn",
    linears={
        "query": "encoder_attn.q_proj",
        "key": "encoder_attn.k_proj",
        "value": "encoder_attn.v_proj",
        "output": "encoder_attn.out_proj",
    },
    norm="encoder_attn_layer_norm",
)
_FFN = BlockSpec(output="fc2", source="fc1", linears={"up": "fc1", "down": "fc2"}, norm="final_layer_norm")

FAMILY = register_family(
    Family(
        name="bart",
        model_types={"bart": ("text",)},
        stacks=(
            Stack(
                tower="text",
                name="encoder",
                layers=("model.encoder.layers", "encoder.layers"),
                blocks={"attention": _ATTENTION, "ffn": _FFN},
            ),
            Stack(
                tower="text",
                name="decoder",
                layers=("model.decoder.layers", "decoder.layers"),
                blocks={"attention": _ATTENTION, "cross_attention": _CROSS, "ffn": _FFN},
            ),
        ),
        towers={"text": ""},
        places=(
            Place(
                tower="text",
                block="embedding",
                path=("model.encoder", "encoder"),
                name="encoder",
                whole="tokens",
                width="embed_tokens",
                positions="embed_positions",
                reader=("model.decoder", "decoder"),
            ),
            Place(
                tower="text",
                block="embedding",
                path=("model.decoder", "decoder"),
                name="decoder",
                whole="tokens",
                width="embed_tokens",
                positions="embed_positions",
            ),
        ),
        outside=(Outside("lm_head", "text", "logits"),),
        components={
            "embeddings": ("model.shared", "shared"),
            "positions": (
                "model.encoder.embed_positions",
                "model.decoder.embed_positions",
                "encoder.embed_positions",
                "decoder.embed_positions",
            ),
            "lm_head": "lm_head",
        },
    )
)


def _norm_first(spec: BlockSpec, norm: str) -> BlockSpec:
    # The sum is held by a module of its own behind the last sub-layer alone, where it is what the layer returns.
    return replace(spec, before=norm, behind="" if spec is _FFN else None, norm=None)


_SELF_FIRST = _norm_first(_ATTENTION, "self_attn_layer_norm")
_FFN_FIRST = _norm_first(_FFN, "final_layer_norm")
MBART = register_family(
    replace(
        FAMILY,
        model_types={"mbart": ("text",)},
        stacks=(
            replace(FAMILY.stacks[0], blocks={"attention": _SELF_FIRST, "ffn": _FFN_FIRST}),
            replace(
                FAMILY.stacks[1],
                blocks={
                    "attention": _SELF_FIRST,
                    "cross_attention": _norm_first(_CROSS, "encoder_attn_layer_norm"),
                    "ffn": _FFN_FIRST,
                },
            ),
        ),
    )
)
