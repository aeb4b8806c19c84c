"""BERT: residual and norm lie inside the `output` modules, so a site is the linear map before them."""

from weft.core.backbone.family import BlockSpec, Family, Outside, Place, Stack, register_family
from weft.core.backbone.sites import Block


def _attention(name: str, *, optional: bool = False) -> BlockSpec:
    return BlockSpec(
        output=f"{name}.output.dense",
        source=name,
        before=name,
        behind=f"{name}.output",
        linears={
            "query": f"{name}.self.query",
            "key": f"{name}.self.key",
            "value": f"{name}.self.value",
            "output": f"{name}.output.dense",
        },
        optional=optional,
        norm=f"{name}.output.LayerNorm",
    )


BLOCKS: dict[Block, BlockSpec] = {
    "attention": _attention("attention"),
    "cross_attention": _attention("crossattention", optional=True),
    "ffn": BlockSpec(
        output="output.dense",
        source="intermediate",
        before="intermediate",
        behind="output",
        linears={"up": "intermediate.dense", "down": "output.dense"},
        norm="output.LayerNorm",
    ),
}

FAMILY = register_family(
    Family(
        name="bert",
        model_types={"bert": ("text",)},
        stacks=(Stack(tower="text", layers=("bert.encoder.layer", "encoder.layer"), blocks=BLOCKS),),
        places=(
            Place(
                tower="text",
                block="embedding",
                path=("bert.encoder", "encoder"),
                whole="embeddings",
                width="layer.0.attention.output.dense",
            ),
        ),
        towers={"text": ("bert", "")},
        outside=(Outside(("classifier", "cls", "bert.pooler", "pooler"), "text"),),
        components={
            "embeddings": ("bert.embeddings.word_embeddings", "embeddings.word_embeddings"),
            "head": ("classifier", "cls"),
        },
    )
)
