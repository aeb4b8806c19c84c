"""Gemma decoders: from Gemma 2 on, a norm before and another after each sub-layer; the latter's output is the site.

Gemma 1 has Llama's layers. Some layers of Gemma 4 add features of each token after both sub-layers, which are no site.
"""

from dataclasses import replace

from weft.core.backbone.declaring import decoder
from weft.core.backbone.families.llama import BLOCKS as LLAMA
from weft.core.backbone.family import BlockSpec, register_family
from weft.core.backbone.sites import Block

_BLOCKS: dict[Block, BlockSpec] = {
    "attention": replace(LLAMA["attention"], output="post_attention_layernorm", width="self_attn.o_proj"),
    "ffn": replace(
        LLAMA["ffn"],
        output="post_feedforward_layernorm",
        before="pre_feedforward_layernorm",
        width="mlp.down_proj",
    ),
}

FAMILY = register_family(decoder("gemma", "gemma2 gemma3_text gemma4_text", _BLOCKS))
GEMMA_1 = register_family(decoder("gemma1", "gemma", LLAMA))
