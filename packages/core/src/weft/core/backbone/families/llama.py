"""Decoders built like Llama (Qwen, Mistral, the text towers of LLaVA and Qwen-VL): RMS norms first, gated FFN.

Feed-forward blocks of experts are sites as a whole; their maps lie in one tensor and have no roles. In Qwen3.5, most
layers have linear attention, of which the map at its end alone has a role.
"""

from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block

BLOCKS: dict[Block, BlockSpec] = {
    "attention": BlockSpec(
        output=("self_attn.o_proj", "linear_attn.out_proj"),
        source=("self_attn", "linear_attn"),
        before="input_layernorm",
        linears={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": ("self_attn.o_proj", "linear_attn.out_proj"),
        },
    ),
    "ffn": BlockSpec(
        output="mlp",
        source="mlp",
        before="post_attention_layernorm",
        width=("mlp.down_proj", "post_attention_layernorm"),
        linears={"up": "mlp.up_proj", "gate": "mlp.gate_proj", "down": "mlp.down_proj"},
    ),
}

FAMILY = register_family(
    Family(
        name="llama",
        model_types={
            "llama": ("text",),
            "mistral": ("text",),
            "qwen2": ("text",),
            "qwen3": ("text",),
            "qwen2_vl_text": ("text",),
            "qwen2_5_vl_text": ("text",),
            "qwen3_vl_text": ("text",),
            "qwen3_vl_moe_text": ("text",),
            "qwen3_5_text": ("text",),
            "qwen3_5_moe_text": ("text",),
        },
        stacks=(Stack(tower="text", layers=("model.layers", "layers"), blocks=BLOCKS),),
        places=(
            Place(
                tower="text",
                block="embedding",
                path=("model", ""),
                whole="tokens",
                width="layers.0.self_attn.q_proj",
            ),
        ),
        towers={"text": ""},
        outside=(Outside("lm_head", "text", "logits"),),
        components={"embeddings": ("model.embed_tokens", "embed_tokens"), "lm_head": "lm_head"},
    )
)
