"""T5, Flan-T5 and mT5: an encoder-decoder with RMS norms before each sub-layer and no biases."""

from weft.core.backbone.declaring import attention, feed_forward
from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block


def _attention(layer: str, name: str) -> BlockSpec:
    return attention(f"{layer}.{name}", query="q", key="k", value="v", output="o", before=layer, behind=layer)


def _ffn(layer: str) -> BlockSpec:
    return feed_forward(
        f"{layer}.DenseReluDense", up=("wi", "wi_1"), gate="wi_0", down="wo", before=layer, behind=layer
    )


_SELF, _CROSS = _attention("layer.0", "SelfAttention"), _attention("layer.1", "EncDecAttention")
_DECODER: dict[Block, BlockSpec] = {"attention": _SELF, "cross_attention": _CROSS, "ffn": _ffn("layer.2")}

FAMILY = register_family(
    Family(
        name="t5",
        model_types=dict.fromkeys(("t5", "mt5"), ("text",)),
        stacks=(
            Stack("text", "encoder.block", {"attention": _SELF, "ffn": _ffn("layer.1")}, "encoder"),
            Stack("text", "decoder.block", _DECODER, "decoder"),
        ),
        towers={"text": ""},
        places=tuple(
            Place("text", "embedding", name, name, whole="tokens", width="embed_tokens", reader=reader)
            for name, reader in (("encoder", "decoder"), ("decoder", None))
        ),
        outside=(Outside("lm_head", "text", "logits"),),
        components={"embeddings": "shared", "lm_head": "lm_head"},
    )
)
