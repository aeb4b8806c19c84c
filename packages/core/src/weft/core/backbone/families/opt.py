"""OPT: a decoder with BART's names; its feed-forward block sees all tokens flattened."""

from weft.core.backbone.declaring import ROOTS, attention, decoder, inside
from weft.core.backbone.family import BlockSpec, register_family
from weft.core.backbone.sites import Block

_BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention("self_attn", before="self_attn_layer_norm"),
    "ffn": BlockSpec(
        output="fc2", source="fc1", before="final_layer_norm", linears={"up": "fc1", "down": "fc2"}
    ),
}

FAMILY = register_family(decoder("opt", "opt", _BLOCKS, root=inside(ROOTS, "decoder")))
