"""Models that are asked without a template: prompt and answer in one sequence, or in an encoder and a decoder."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from weft.core.testing.backbones import BART_FIELDS
from weft.core.testing.processed.stills import image_processor
from weft.core.testing.processed.words import ENDS, SIGLIP, SQUARE, VISION, Pair, decoder_sizes, tokenizer
from weft.core.testing.vision_language import query_fields


def paligemma() -> Pair:
    """PaliGemma 2: SigLIP and Gemma 2; image and prompt attend to one another, the answer looks back."""
    words = tokenizer(["<image>"], padding_side="right", extra_special_tokens={"image_token": "<image>"})
    images = image_processor("SiglipImageProcessor", size=SQUARE)
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, words)
    text = decoder_sizes(words, head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
    config = transformers.PaliGemmaConfig(
        image_token_index=processor.image_token_id,
        projection_dim=16,
        hidden_size=16,
        text_config={**text, "model_type": "gemma2"},
        vision_config={**SIGLIP, "projection_dim": 16},
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor


def _queries(words: Any, reads: int) -> dict[str, Any]:
    text = {"vocab_size": len(words), "max_position_embeddings": 256, **ENDS}
    return query_fields(reads, words.convert_tokens_to_ids("<image>"), VISION, **text)


def blip2() -> Pair:
    """BLIP-2 with OPT: four query tokens precede the beginning of the text."""
    words = tokenizer(template="<s> $A", padding_side="left")
    images = image_processor("BlipImageProcessor", size=SQUARE)
    processor = transformers.Blip2Processor(images, words, num_query_tokens=4)
    config = transformers.Blip2Config(**_queries(words, 50))
    return transformers.Blip2ForConditionalGeneration(config), processor


def instructblip() -> Pair:
    """InstructBLIP with OPT: its Q-Former reads the prompt beside the image, by a tokenizer of its own."""
    words = tokenizer(template="<s> $A", padding_side="left")
    read = tokenizer(size=320, padding_side="right")
    images = image_processor("BlipImageProcessor", size=SQUARE)
    processor = transformers.InstructBlipProcessor(images, words, read, num_query_tokens=4)
    config = transformers.InstructBlipConfig(**_queries(words, len(read)))
    return transformers.InstructBlipForConditionalGeneration(config), processor


def florence2() -> Pair:
    """Florence-2: DaViT and BART; image and prompt in the encoder, the answer in the decoder."""
    words = tokenizer(
        ["<image>"],
        padding_side="right",
        template="<s> $A </s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    config = transformers.Florence2Config(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projection_dim=16,
        vision_config={
            "embed_dim": [8, 16],
            "depths": [1, 1],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 4,
            "projection_dim": 16,
            "max_position_embeddings": 20,
        },
        text_config={
            "model_type": "bart",
            **BART_FIELDS,
            "vocab_size": len(words),
            "max_position_embeddings": 256,
            **ENDS,
            "decoder_start_token_id": 2,
            "forced_bos_token_id": None,
        },
    )
    model = transformers.Florence2ForConditionalGeneration(config)
    size = {"height": 64, "width": 64}
    images = image_processor("CLIPImageProcessor", size=size, do_center_crop=False, crop_size=size)
    with torch.no_grad():
        seen = model.get_image_features(torch.zeros(1, 3, 64, 64)).pooler_output
    images.image_seq_length = seen.shape[-2]
    return model, transformers.Florence2Processor(images, words)


BUILDERS = (paligemma, blip2, instructblip, florence2)
