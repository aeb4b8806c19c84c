"""Dual encoders, and BLIP's three heads."""

from __future__ import annotations

import transformers
from tokenizers.processors import TemplateProcessing

from weft.core.testing.backbones import SIZES
from weft.core.testing.processed.stills import image_processor
from weft.core.testing.processed.words import ENDS, SENTENCES, SQUARE, VISION, Pair, tokenizer


def clip() -> Pair:
    """CLIP: a text is pooled at its end token, and padding is masked."""
    words = tokenizer(template="<s> $A </s>", padding_side="right", model_max_length=32)
    text = {**SIZES, **ENDS, "vocab_size": len(words), "max_position_embeddings": 32}
    config = transformers.CLIPConfig(
        text_config={**text, "projection_dim": 8},
        vision_config={**VISION, "projection_dim": 8},
        projection_dim=8,
    )
    images = image_processor("CLIPImageProcessor", size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.CLIPModel(config), transformers.CLIPProcessor(images, words)


def siglip() -> Pair:
    """SigLIP, and SigLIP 2 of one resolution: texts without a mask, pooled at their last place."""
    words = tokenizer(
        template="$A </s>", padding_side="right", model_max_length=16, model_input_names=["input_ids"]
    )
    text = {**SIZES, **ENDS, "vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    images = image_processor("SiglipImageProcessor", size=SQUARE)
    return transformers.SiglipModel(config), transformers.SiglipProcessor(images, words)


def siglip2() -> Pair:
    """SigLIP 2 of any resolution (NaFlex): patches of an image, padded, with their shape.

    Its processor is loaded with a tokenizer of its own class, whatever was saved beside it.
    """
    words = transformers.Siglip2Tokenizer(model_max_length=16).train_new_from_iterator(SENTENCES * 8, 360)
    end = words.eos_token
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B", special_tokens=[(end, words.eos_token_id)]
    )
    words.model_input_names, words.padding_side = ["input_ids"], "right"
    ends = {name: getattr(words, name) for name in ENDS}
    text = {**SIZES, **ends, "vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 16}
    config = transformers.Siglip2Config(
        text_config=text, vision_config={**SIZES, "patch_size": 8, "num_patches": 16}
    )
    images = image_processor("Siglip2ImageProcessor", patch_size=8, max_num_patches=16)
    return transformers.Siglip2Model(config), transformers.Siglip2Processor(images, words)


def _blip(kind: str) -> Pair:
    words = tokenizer(
        ["[ENC]"], template="<s> $A </s>", padding_side="right", cls_token="<s>", sep_token="</s>"
    )
    text = {
        **SIZES,
        **ENDS,
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
        "sep_token_id": 2,
    }
    config = transformers.BlipConfig(
        projection_dim=8, image_text_hidden_size=8, text_config=text, vision_config=VISION
    )
    images = image_processor("BlipImageProcessor", size=SQUARE)
    return getattr(transformers, f"BlipFor{kind}")(config), transformers.BlipProcessor(images, words)


def blip_itr() -> Pair:
    """BLIP that compares and matches."""
    return _blip("ImageTextRetrieval")


def blip_vqa() -> Pair:
    """BLIP that answers."""
    return _blip("QuestionAnswering")


def blip_caption() -> Pair:
    """BLIP that describes."""
    return _blip("ConditionalGeneration")


BUILDERS = (clip, siglip, siglip2, blip_itr, blip_vqa, blip_caption)
