"""Tiny random vision-and-language models, vision models and text encoders of `transformers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.core.testing.backbones import SIZES, model_of, token_ids

Case = tuple[Any, dict[str, Any]]

ROWS = 2
_VISION: dict[str, Any] = {**SIZES, "image_size": 16, "patch_size": 8, "initializer_range": 0.02}
_DECODER: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 1,
    "vocab_size": 120,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SIGLIP_TEXT = {**SIZES, "vocab_size": 100, "max_position_embeddings": 16, "projection_size": 16}
_SIGLIP_TOWER: dict[str, Any] = {**_VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
IMAGE, VIDEO, START, END = 110, 111, 112, 113


def _pixels(side: int = 16) -> Tensor:
    return torch.randn(ROWS, 3, side, side)


def _text_after(images: int, token: int = IMAGE, text: int = 6) -> dict[str, Tensor]:
    ids = torch.cat([torch.full((ROWS, images), token), token_ids(ROWS, text)], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def bert() -> Case:
    """A BERT encoder."""
    return model_of("Bert", "Model", vocab_size=100, **SIZES), {"input_ids": token_ids(ROWS, 7)}


def vit() -> Case:
    """A ViT classifier."""
    return model_of("ViT", "ForImageClassification", **_VISION), {"pixel_values": _pixels()}


def dinov2() -> Case:
    """A DINOv2 encoder."""
    sizes = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
    model = model_of("Dinov2", "Model", **sizes, mlp_ratio=2, image_size=16, patch_size=8)
    return model, {"pixel_values": _pixels()}


def siglip() -> Case:
    """A SigLIP dual encoder."""
    model = model_of("Siglip", "Model", text_config=_SIGLIP_TEXT, vision_config=_VISION)
    return model, {"input_ids": token_ids(ROWS, 16), "pixel_values": _pixels()}


def siglip2() -> Case:
    """SigLIP 2 of any resolution; its images have 4 and 2 patches."""
    vision = {**SIZES, "patch_size": 8, "num_patches": 4}
    batch = {
        "input_ids": token_ids(ROWS, 16),
        "pixel_values": torch.randn(ROWS, 4, 3 * 8 * 8),
        "pixel_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "spatial_shapes": torch.tensor([[2, 2], [1, 2]]),
    }
    return model_of("Siglip2", "Model", text_config=_SIGLIP_TEXT, vision_config=vision), batch


def blip_fields(
    width: int = 16, *, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Fields of a tiny BLIP's configuration, whose token 99 is free for `encode_token_id`.

    `text` and `vision` are fields of the towers, of one width, that differ.
    """
    sizes = {**SIZES, "hidden_size": width, "intermediate_size": 2 * width}
    words = {"vocab_size": 100, "bos_token_id": 97, "sep_token_id": 98, "eos_token_id": 98, "pad_token_id": 0}
    places = {"encoder_hidden_size": width, "max_position_embeddings": 32}
    return {
        "text_config": {**sizes, **words, **places, **(text or {})},
        "vision_config": {**_VISION, **sizes, **(vision or {})},
        "image_text_hidden_size": width // 2,
    }


def _blip(head: str) -> Any:
    return model_of("Blip", head, projection_dim=8, **blip_fields())


def blip_retrieval() -> Case:
    """BLIP with its matching head."""
    batch = {"input_ids": token_ids(ROWS, 7), "pixel_values": _pixels(), "use_itm_head": True}
    return _blip("ForImageTextRetrieval"), batch


def blip_vqa() -> Case:
    """BLIP for question answering."""
    batch = {"input_ids": token_ids(ROWS, 7), "pixel_values": _pixels(), "labels": token_ids(ROWS, 5)}
    return _blip("ForQuestionAnswering"), batch


def blip_caption() -> Case:
    """BLIP for captions."""
    ids = token_ids(ROWS, 7)
    batch = {"input_ids": ids, "labels": ids, "pixel_values": _pixels()}
    return _blip("ForConditionalGeneration"), batch


def query_fields(reads: int, image: int, vision: dict[str, Any], **text: Any) -> dict[str, Any]:
    """Settings of a Q-Former of four queries, which reads a vocabulary, between a tower and OPT."""
    sizes = {**SIZES, "vocab_size": reads, "encoder_hidden_size": 16, "cross_attention_frequency": 2}
    opt = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "num_query_tokens": 4,
        "image_token_index": image,
        "vision_config": vision,
        "qformer_config": sizes,
        "text_config": {"model_type": "opt", **opt, "word_embed_proj_dim": 16, **text},
    }


def _queries(reads: int) -> dict[str, Any]:
    return query_fields(reads, 100, _VISION, vocab_size=104, max_position_embeddings=64)


def blip2() -> Case:
    """BLIP-2 with OPT."""
    model = model_of("Blip2", **_queries(50))
    torch.nn.init.normal_(model.query_tokens)
    return model, {**_text_after(4, 100), "pixel_values": _pixels()}


def instructblip() -> Case:
    """InstructBLIP with OPT; its Q-Former reads the instruction beside the image."""
    model = model_of("InstructBlip", **_queries(100))
    torch.nn.init.normal_(model.query_tokens)
    question = token_ids(ROWS, 5)
    batch = {"qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}
    return model, {**_text_after(4, 100), **batch, "pixel_values": _pixels()}


def git() -> Case:
    """GIT, which writes after its image; one image a row."""
    text = {**SIZES, "vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 0, "use_cache": False}
    model = model_of("Git", "ForCausalLM", **text, vision_config=_VISION)
    ids = token_ids(ROWS, 6)
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": _pixels()}


def _tiled_batch() -> dict[str, Any]:
    # Four tokens of the whole image; two rows of two of the tile, each ended by a line break.
    batch = _text_after(4 + 2 * (2 + 1))
    return {
        **batch,
        "pixel_values": torch.randn(ROWS, 2, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 16]] * ROWS),
    }


def llava_onevision() -> Case:
    """LLaVA-OneVision with SigLIP and Qwen2; an image is seen whole and in one tile."""
    batch = _tiled_batch()
    model = model_of(
        "LlavaOnevision",
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[16, 16]],
        text_config={**_DECODER, "model_type": "qwen2", "tie_word_embeddings": True},
        vision_config=_SIGLIP_TOWER,
    )
    return model, batch


def llava() -> Case:
    """LLaVA 1.5 with CLIP and Llama."""
    model = model_of(
        "Llava",
        image_token_index=IMAGE,
        image_seq_length=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        text_config={**_DECODER, "model_type": "llama"},
        vision_config={**_VISION, "model_type": "clip_vision_model", "projection_dim": 8},
    )
    return model, {**_text_after(4), "pixel_values": _pixels()}


def _qwen_batch() -> dict[str, Any]:
    grid = torch.tensor([[1, 4, 4], [1, 2, 4]])
    rows = []
    for tokens in (grid.prod(dim=1) // 4).tolist():
        marks = [torch.tensor([START]), torch.full((tokens,), IMAGE), torch.tensor([END])]
        rows.append(torch.cat([*marks, token_ids(8 - tokens)]))
    ids = torch.stack(rows)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(int(grid.prod(dim=1).sum()), 3 * 2 * 4 * 4),
        "image_grid_thw": grid,
    }


def _qwen_fields(sections: list[int]) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    return {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "text_config": {**_DECODER, "head_dim": 8, "rope_parameters": rope},
    }


QWEN_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


_QWEN3_VISION = {**QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}


def qwen2_5_vl() -> Case:
    """Qwen2.5-VL; its images have 16 and 8 patches."""
    vision = {**QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]}
    return model_of("Qwen2_5_VL", **_qwen_fields([1, 1, 2]), vision_config=vision), _qwen_batch()


def qwen3_vl() -> Case:
    """Qwen3-VL; its images have 16 and 8 patches."""
    return model_of("Qwen3VL", **_qwen_fields([2, 1, 1]), vision_config=_QWEN3_VISION), _qwen_batch()


_GEMMA: dict[str, Any] = {**_DECODER, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}


def paligemma() -> Case:
    """PaliGemma 2."""
    batch = _text_after(4)
    model = model_of(
        "PaliGemma",
        image_token_index=IMAGE,
        projection_dim=16,
        hidden_size=16,
        text_config={**_GEMMA, "model_type": "gemma2"},
        vision_config={**_SIGLIP_TOWER, "projection_dim": 16},
    )
    kinds = torch.zeros_like(batch["input_ids"])
    return model, {**batch, "token_type_ids": kinds, "pixel_values": _pixels()}


def gemma3() -> Case:
    """Gemma 3."""
    batch = _text_after(4)
    model = model_of(
        "Gemma3",
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
        mm_tokens_per_image=4,
        text_config={**_GEMMA, "model_type": "gemma3_text"},
        vision_config={**_SIGLIP_TOWER, "image_size": 32},
    )
    kinds = (batch["input_ids"] == IMAGE).long()
    return model, {**batch, "token_type_ids": kinds, "pixel_values": _pixels(32)}


def _idefics(architecture: str) -> Case:
    """A model of Idefics3's architecture, with Llama."""
    batch = {**_text_after(4), "pixel_values": torch.randn(ROWS, 1, 3, 32, 32)}
    model = model_of(
        architecture,
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
        text_config={**_DECODER, "model_type": "llama"},
        vision_config={**_VISION, "image_size": 32},
    )
    return model, batch


def smolvlm() -> Case:
    """SmolVLM, of Idefics3's architecture."""
    return _idefics("SmolVLM")


CASES = {
    case.__name__: case
    for case in (
        bert,
        vit,
        dinov2,
        siglip,
        siglip2,
        blip_retrieval,
        blip_vqa,
        blip_caption,
        blip2,
        instructblip,
        git,
        llava,
        llava_onevision,
        qwen2_5_vl,
        qwen3_vl,
        paligemma,
        gemma3,
        smolvlm,
    )
}
