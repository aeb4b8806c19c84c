"""BLIP for retrieval, question answering and captions: a ViT with fused query, key and value, and BERT stacks."""

from weft.core.backbone.declaring import attention, feed_forward
from weft.core.backbone.families.bert import BLOCKS as TEXT_BLOCKS
from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.sites import Block

VISION_BLOCKS: dict[Block, BlockSpec] = {
    "attention": attention("self_attn", fused="qkv", output="projection", before="layer_norm1"),
    "ffn": feed_forward("mlp", up="fc1", down="fc2", before="layer_norm2"),
}
VISION = Stack("vision", "vision_model.encoder.layers", VISION_BLOCKS, modality="vision")
_TYPES = "blip weft_blip_answering weft_blip_captioning weft_blip_retrieval"
_WORDS = "embeddings.word_embeddings"

FAMILY = register_family(
    Family(
        name="blip",
        model_types=dict.fromkeys(_TYPES.split(), ("text", "vision")),
        stacks=(
            Stack("text", ("text_encoder.encoder.layer", "text_model.encoder.layer"), TEXT_BLOCKS, "encoder"),
            Stack("text", "text_decoder.bert.encoder.layer", TEXT_BLOCKS, "decoder"),
            VISION,
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
            "embeddings": (f"text_encoder.{_WORDS}", f"text_decoder.bert.{_WORDS}", f"text_model.{_WORDS}"),
            "logit_scale": "logit_scale",
            "temperature": "temp",
        },
    )
)
