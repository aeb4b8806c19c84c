"""BERT: residual and norm are inside the `output` modules, so a site is the linear map before them."""

from typing import Any

from weft.core.backbone.declaring import attention, inside
from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block

_INNER: dict[str, Any] = {
    "query": "self.query",
    "key": "self.key",
    "value": "self.value",
    "output": "output.dense",
}


def _attention(name: str, *, optional: bool = False) -> BlockSpec:
    behind = f"{name}.output"
    return attention(
        name, **_INNER, before=name, behind=behind, norm=f"{behind}.LayerNorm", optional=optional
    )


BLOCKS: dict[Block, BlockSpec] = {
    "attention": _attention("attention"),
    "cross_attention": _attention("crossattention", optional=True),
    "ffn": BlockSpec(
        output="output.dense",
        source="intermediate",
        before="intermediate",
        behind="output",
        norm="output.LayerNorm",
        linears={"up": "intermediate.dense", "down": "output.dense"},
    ),
}
_ROOTS = ("bert", "")
_ENCODER = inside(_ROOTS, "encoder")
_FIRST = "layer.0.attention.output.dense"

FAMILY = register_family(
    Family(
        name="bert",
        model_types={"bert": ("text",)},
        stacks=(Stack("text", inside(_ENCODER, "layer"), BLOCKS),),
        places=(Place("text", "embedding", _ENCODER, whole="embeddings", width=_FIRST),),
        towers={"text": _ROOTS},
        outside=(Outside(("classifier", "cls", "bert.pooler", "pooler"), "text"),),
        components={
            "embeddings": inside(_ROOTS, "embeddings.word_embeddings"),
            "head": ("classifier", "cls"),
        },
    )
)
