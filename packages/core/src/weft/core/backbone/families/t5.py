"""T5, Flan-T5 and mT5: an encoder-decoder with RMS norms before each sub-layer and no biases."""

from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.module_paths import Paths


def _attention(path: str) -> BlockSpec:
    whole = path.rpartition(".")[0]
    return BlockSpec(
        output=f"{path}.o",
        source=path,
        before=whole,
        behind=whole,
        linears={"query": f"{path}.q", "key": f"{path}.k", "value": f"{path}.v", "output": f"{path}.o"},
    )


def _ffn(path: str) -> BlockSpec:
    up: Paths = (f"{path}.wi", f"{path}.wi_1")
    return BlockSpec(
        output=path,
        source=path,
        before=path.rpartition(".")[0],
        behind=path.rpartition(".")[0],
        width=f"{path}.wo",
        linears={"up": up, "gate": f"{path}.wi_0", "down": f"{path}.wo"},
    )


FAMILY = register_family(
    Family(
        name="t5",
        model_types={"t5": ("text",), "mt5": ("text",)},
        stacks=(
            Stack(
                tower="text",
                name="encoder",
                layers="encoder.block",
                blocks={
                    "attention": _attention("layer.0.SelfAttention"),
                    "ffn": _ffn("layer.1.DenseReluDense"),
                },
            ),
            Stack(
                tower="text",
                name="decoder",
                layers="decoder.block",
                blocks={
                    "attention": _attention("layer.0.SelfAttention"),
                    "cross_attention": _attention("layer.1.EncDecAttention"),
                    "ffn": _ffn("layer.2.DenseReluDense"),
                },
            ),
        ),
        towers={"text": ""},
        places=(
            Place(
                tower="text",
                block="embedding",
                path="encoder",
                name="encoder",
                whole="tokens",
                width="embed_tokens",
                reader="decoder",
            ),
            Place(
                tower="text",
                block="embedding",
                path="decoder",
                name="decoder",
                whole="tokens",
                width="embed_tokens",
            ),
        ),
        outside=(Outside("lm_head", "text", "logits"),),
        components={"embeddings": "shared", "lm_head": "lm_head"},
    )
)
