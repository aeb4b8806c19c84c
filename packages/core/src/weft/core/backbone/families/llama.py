"""Decoders built like Llama (Qwen, Mistral, the text towers of LLaVA and Qwen-VL): RMS norms first, gated FFN.

Feed-forward blocks of experts are sites as a whole; their maps are in one tensor and have no roles. In Qwen3.5, most
layers have linear attention, of which the map at its end alone has a role.
"""

from weft.core.backbone.declaring import ROOTS, attention, decoder, feed_forward
from weft.core.backbone.family import BlockSpec, Place, register_family
from weft.core.backbone.sites import Block

BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention(
        ("self_attn", "linear_attn"), output=("o_proj", "out_proj"), before="input_layernorm"
    ),
    "ffn": feed_forward(
        "mlp",
        up="up_proj",
        gate="gate_proj",
        down="down_proj",
        before="post_attention_layernorm",
        width=("mlp.down_proj", "post_attention_layernorm"),
    ),
}

FAMILY = register_family(
    decoder(
        "llama",
        "llama mistral qwen2 qwen3 qwen2_vl_text qwen2_5_vl_text qwen3_vl_text qwen3_vl_moe_text qwen3_5_text "
        "qwen3_5_moe_text",
        BLOCKS,
        place=Place("text", "embedding", ROOTS, whole="tokens", width="layers.0.self_attn.q_proj"),
    )
)
