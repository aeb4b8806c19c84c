"""BLIP for retrieval, question answering and captions: a ViT with fused query, key and value, and BERT stacks."""

from weft.core.backbone.families.bert import BLOCKS as TEXT_BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Fused, Outside, Stack, register_family
from weft.core.backbone.sites import Block

VISION_BLOCKS: dict[Block, BlockSpec] = {
    "attention": BlockSpec(
        output="self_attn.projection",
        source="self_attn",
        before="layer_norm1",
        linears={
            "query": Fused("self_attn.qkv", 0),
            "key": Fused("self_attn.qkv", 1),
            "value": Fused("self_attn.qkv", 2),
            "output": "self_attn.projection",
        },
    ),
    "ffn": BlockSpec(
        output="mlp",
        source="mlp",
        before="layer_norm2",
        width="mlp.fc2",
        linears={"up": "mlp.fc1", "down": "mlp.fc2"},
    ),
}

FAMILY = register_family(
    Family(
        name="blip",
        model_types={
            "blip": ("text", "vision"),
            "weft_blip_answering": ("text", "vision"),
            "weft_blip_captioning": ("text", "vision"),
            "weft_blip_retrieval": ("text", "vision"),
        },
        stacks=(
            Stack(
                tower="text",
                name="encoder",
                layers=("text_encoder.encoder.layer", "text_model.encoder.layer"),
                blocks=TEXT_BLOCKS,
            ),
            Stack(tower="text", name="decoder", layers="text_decoder.bert.encoder.layer", blocks=TEXT_BLOCKS),
            Stack(
                tower="vision", layers="vision_model.encoder.layers", blocks=VISION_BLOCKS, modality="vision"
            ),
        ),
        towers={"text": ("text_encoder", "text_decoder", "text_model"), "vision": "vision_model"},
        outside=(
            Outside(("vision_proj", "visual_projection"), "vision"),
            Outside(("text_proj", "text_projection"), "text"),
            Outside("itm_head", "cross"),
            Outside("text_decoder.cls", "text", "logits"),
        ),
        components={
            "vision": "vision_model",
            "projector": ("vision_proj", "text_proj", "visual_projection", "text_projection"),
            "head": "itm_head",
            "lm_head": "text_decoder.cls",
            "embeddings": (
                "text_encoder.embeddings.word_embeddings",
                "text_decoder.bert.embeddings.word_embeddings",
                "text_model.embeddings.word_embeddings",
            ),
            "logit_scale": "logit_scale",
            "temperature": "temp",
        },
    )
)
