"""Llama 4's decoder: some feed-forward blocks are experts, which lay all tokens flat and return them so."""

from weft.core.backbone.declaring import decoder, feed_forward
from weft.core.backbone.families.llama import BLOCKS
from weft.core.backbone.family import register_family

_FFN = feed_forward(
    "feed_forward",
    up="up_proj",
    gate="gate_proj",
    down="down_proj",
    source=("feed_forward.router", "feed_forward"),
    before="post_attention_layernorm",
    width="post_attention_layernorm",
)
FAMILY = register_family(decoder("llama4", "llama4_text", {**BLOCKS, "ffn": _FFN}))
