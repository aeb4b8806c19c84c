"""Tiny random models of the types that share their architecture with one of `vision_language` or `backbones`."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from weft.core.testing.backbones import BART_FIELDS, T5_FIELDS, seq2seq_batch, token_ids
from weft.core.testing.vision_language import (
    _DECODER,
    _QWEN_VISION,
    _VISION,
    IMAGE,
    ROWS,
    VIDEO,
    Case,
    _idefics,
    _qwen_batch,
    _qwen_fields,
    _text_after,
)


def qwen2_vl() -> Case:
    """Qwen2-VL; its images have 16 and 8 patches."""
    left_out = ("intermediate_size", "out_hidden_size")
    vision = {name: value for name, value in _QWEN_VISION.items() if name not in left_out}
    vision |= {"embed_dim": 16, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(**_qwen_fields([1, 1, 2]), vision_config=vision)
    return transformers.Qwen2VLForConditionalGeneration(config), _qwen_batch()


def _llava_next(architecture: str, **fields: Any) -> Case:
    """A model of LLaVA-NeXT's architecture, with CLIP and Mistral; an image is seen whole and in one tile."""
    config = getattr(transformers, f"{architecture}Config")(
        **fields,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=[[16, 16]],
        text_config={**_DECODER, "model_type": "mistral"},
        vision_config={**_VISION, "model_type": "clip_vision_model", "projection_dim": 8},
    )
    # Four tokens of the whole image; two rows of two of the tile, each ended by a line break.
    batch = _text_after(4 + 2 * (2 + 1))
    batch |= {"pixel_values": torch.randn(ROWS, 2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]] * ROWS)}
    return getattr(transformers, f"{architecture}ForConditionalGeneration")(config), batch


def llava_next() -> Case:
    """LLaVA-NeXT."""
    return _llava_next("LlavaNext")


def llava_next_video() -> Case:
    """LLaVA-NeXT-Video, shown images."""
    return _llava_next("LlavaNextVideo", video_token_index=VIDEO)


def idefics3() -> Case:
    """Idefics3 with Llama."""
    return _idefics("Idefics3")


def mt5() -> Case:
    """MT5, whose feed-forward blocks are gated."""
    return transformers.MT5ForConditionalGeneration(transformers.MT5Config(**T5_FIELDS)), seq2seq_batch()


def mbart() -> Case:
    """MBart, whose norms come before each sub-layer."""
    return transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(**BART_FIELDS)
    ), seq2seq_batch()


def llama() -> Case:
    """Llama alone."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_DECODER)), {
        "input_ids": token_ids(ROWS, 6)
    }


def mistral() -> Case:
    """Mistral alone."""
    config = transformers.MistralConfig(**_DECODER, head_dim=8)
    return transformers.MistralForCausalLM(config), {"input_ids": token_ids(ROWS, 6)}


def qwen3() -> Case:
    """Qwen3 alone, whose queries and keys have norms."""
    config = transformers.Qwen3Config(**_DECODER, head_dim=8)
    return transformers.Qwen3ForCausalLM(config), {"input_ids": token_ids(ROWS, 6)}


def gemma() -> Case:
    """The first Gemma alone, of Llama's layers."""
    config = transformers.GemmaConfig(**_DECODER, head_dim=8)
    return transformers.GemmaForCausalLM(config), {"input_ids": token_ids(ROWS, 6)}


def gemma4() -> Case:
    """Gemma 4 alone, whose layers add features of each token after both sub-layers."""
    config = transformers.Gemma4TextConfig(
        **_DECODER,
        head_dim=8,
        global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=120,
        num_kv_shared_layers=0,
    )
    return transformers.Gemma4ForCausalLM(config), {"input_ids": token_ids(ROWS, 6)}


def llama4() -> Case:
    """Llama 4 alone; every second feed-forward block is of experts."""
    config = transformers.Llama4TextConfig(
        **_DECODER,
        head_dim=8,
        intermediate_size_mlp=32,
        num_local_experts=2,
        interleave_moe_layer_step=2,
        attention_chunk_size=16,
    )
    return transformers.Llama4ForCausalLM(config), {"input_ids": token_ids(ROWS, 6)}


_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


def qwen3_vl_moe() -> Case:
    """Qwen3-VL of experts; its images have 16 and 8 patches."""
    vision = {**_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    fields = _qwen_fields([2, 1, 1])
    fields["text_config"] |= _EXPERTS
    config = transformers.Qwen3VLMoeConfig(**fields, vision_config=vision)
    return transformers.Qwen3VLMoeForConditionalGeneration(config), _qwen_batch()


def _qwen3_5(kind: str, **changes: Any) -> Case:
    fields = _qwen_fields([2, 1, 1])
    fields["text_config"] |= {
        **{f"linear_{name}_head_dim": 8 for name in ("key", "value")},
        **{f"linear_num_{name}_heads": 2 for name in ("key", "value")},
        "layer_types": ["linear_attention", "full_attention"],
        **changes,
    }
    fields["text_config"]["rope_parameters"]["partial_rotary_factor"] = 1.0
    vision = {**_QWEN_VISION, "num_position_embeddings": 16}
    config = getattr(transformers, f"{kind}Config")(**fields, vision_config=vision)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), _qwen_batch()


def qwen3_5() -> Case:
    """Qwen3.5, whose first layer has linear attention."""
    return _qwen3_5("Qwen3_5")


def qwen3_5_moe() -> Case:
    """Qwen3.5 of experts."""
    return _qwen3_5("Qwen3_5Moe", **_EXPERTS, shared_expert_intermediate_size=8)


# Those that the installed transformers has, by their configs.
_NEWER = {
    "Gemma4TextConfig": gemma4,
    "Llama4TextConfig": llama4,
    "Qwen3VLMoeConfig": qwen3_vl_moe,
    "Qwen3_5Config": qwen3_5,
    "Qwen3_5MoeConfig": qwen3_5_moe,
}
SIBLINGS = {
    case.__name__: case
    for case in (
        *(qwen2_vl, llava_next, llava_next_video, idefics3, mt5, mbart, llama, mistral, qwen3, gemma),
        *(case for name, case in _NEWER.items() if hasattr(transformers, name)),
    )
}
