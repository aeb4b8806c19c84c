"""Tiny random models of the types that share their architecture with one of `vision_language` or `backbones`."""

from __future__ import annotations

from typing import Any

import transformers

from weft.core.testing.backbones import BART_FIELDS, T5_FIELDS, model_of, seq2seq_batch, token_ids
from weft.core.testing.vision_language import (
    _DECODER,
    _QWEN3_VISION,
    _VISION,
    IMAGE,
    QWEN_VISION,
    ROWS,
    VIDEO,
    Case,
    _idefics,
    _qwen_batch,
    _qwen_fields,
    _tiled_batch,
)


def qwen2_vl() -> Case:
    """Qwen2-VL; its images have 16 and 8 patches."""
    left_out = ("intermediate_size", "out_hidden_size")
    vision = {name: value for name, value in QWEN_VISION.items() if name not in left_out}
    vision |= {"embed_dim": 16, "mlp_ratio": 2}
    return model_of("Qwen2VL", **_qwen_fields([1, 1, 2]), vision_config=vision), _qwen_batch()


def _llava_next(architecture: str, **fields: Any) -> Case:
    """A model of LLaVA-NeXT's architecture, with CLIP and Mistral; an image is seen whole and in one tile."""
    batch = _tiled_batch()
    model = model_of(
        architecture,
        **fields,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=[[16, 16]],
        text_config={**_DECODER, "model_type": "mistral"},
        vision_config={**_VISION, "model_type": "clip_vision_model", "projection_dim": 8},
    )
    return model, batch


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
    return model_of("MT5", **T5_FIELDS), seq2seq_batch()


def mbart() -> Case:
    """MBart, whose norms come before each sub-layer."""
    return model_of("MBart", **BART_FIELDS), seq2seq_batch()


def _alone(kind: str, head: str = "ForCausalLM", **fields: Any) -> Case:
    return model_of(kind, head, **_DECODER, **fields), {"input_ids": token_ids(ROWS, 6)}


def llama() -> Case:
    """Llama alone."""
    return _alone("Llama")


def mistral() -> Case:
    """Mistral alone."""
    return _alone("Mistral", head_dim=8)


def qwen3() -> Case:
    """Qwen3 alone, whose queries and keys have norms."""
    return _alone("Qwen3", head_dim=8)


def gemma() -> Case:
    """The first Gemma alone, of Llama's layers."""
    return _alone("Gemma", head_dim=8)


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
    fields = _qwen_fields([2, 1, 1])
    fields["text_config"] |= _EXPERTS
    return model_of("Qwen3VLMoe", **fields, vision_config=_QWEN3_VISION), _qwen_batch()


def _qwen3_5(kind: str, **changes: Any) -> Case:
    fields = _qwen_fields([2, 1, 1])
    fields["text_config"] |= {
        **{f"linear_{name}_head_dim": 8 for name in ("key", "value")},
        **{f"linear_num_{name}_heads": 2 for name in ("key", "value")},
        "layer_types": ["linear_attention", "full_attention"],
        **changes,
    }
    fields["text_config"]["rope_parameters"]["partial_rotary_factor"] = 1.0
    vision = {**QWEN_VISION, "num_position_embeddings": 16}
    return model_of(kind, **fields, vision_config=vision), _qwen_batch()


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
