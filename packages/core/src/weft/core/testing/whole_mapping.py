"""Tiny models of every type that transformers maps images and text to text with, from the type's own default config.

Configs are shrunk by the names of their fields, so that types of releases to come need nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

_DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "depth",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
)
_WIDTHS: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "projection_dim", "projector_hidden_size"), 64),
    **dict.fromkeys(("out_hidden_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_dim", "d_ff", "mlp_dim"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads"), 2),
    "linear_num_value_heads": 4,
    **dict.fromkeys(("head_dim", "global_head_dim", "qk_rope_head_dim", "qk_nope_head_dim"), 16),
    "qk_head_dim": 32,
    **dict.fromkeys(("d_kv", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 300),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    "hidden_size_per_layer_input": 8,
    "max_position_embeddings": 128,
}
# Fields without which the config that a type has by default builds no model, by dotted name.
_MISSING: dict[str, dict[str, Any]] = {
    "aya_vision": {"vision_config.num_attention_heads": 16},
    "chameleon": {"vocabulary_map": {"<image>": 7}},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"]},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 16,
    },
    "emu3": {"vocabulary_map": {"<image>": 7, "<|extra_200|>": 8}},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "downsample_rate": "1/2"},
    "hunyuan_vl": {"text_config.head_dim": 16},
}
# Decoders with positions in three directions whose sections have a default in code.
_SECTIONED = ("glm", "qwen2_vl_text", "qwen2_5_vl_text", "paddleocr_vl_text")


def mapped_types() -> tuple[str, ...]:
    """The types of the installed transformers, alphabetically."""
    return tuple(sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))


def shallow_model(model_type: str) -> nn.Module:
    """A model of a type on the meta device: as wide as its default config says, with few layers of each kind.

    Raises:
        ImportError: If the type needs a library that is not installed.
    """
    config = _config(model_type)
    with torch.device("meta"):
        return _class(model_type)(config)


def tiny_model(model_type: str) -> nn.Module:
    """A model of a type on the CPU, in evaluation mode, of two layers of width 64 and a vocabulary of 300.

    Its images have 32 pixels a side, of patches of 8, where they have a size, and patches of 4 where they have any.
    Types whose widths depend on one another by other rules fail.
    """
    config = _config(model_type)
    _narrow(config)
    _look_less(config)
    torch.manual_seed(0)
    model: nn.Module = _class(model_type)(config)
    return model.eval().requires_grad_(False)


def _class(model_type: str) -> Any:
    return getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type])


def _config(model_type: str) -> Any:
    config = CONFIG_MAPPING[model_type]()
    for name, value in _MISSING.get(model_type, {}).items():
        *holders, field = name.split(".")
        holder = config
        for each in holders:
            holder = getattr(holder, each)
        setattr(holder, field, value)
    _flatten(config)
    return config


def _parts(config: Any) -> Iterator[Any]:
    yield from (value for value in vars(config).values() if isinstance(value, PretrainedConfig))


def _flatten(config: Any) -> None:
    """Leave few layers, but one of each kind."""
    layers = 2
    for name in ("layer_types", "mlp_layer_types"):
        kinds = list(dict.fromkeys(vars(config).get(name) or ()))
        layers = max(layers, len(kinds))
        if kinds:
            setattr(config, name, (kinds * layers)[:layers])
    for name in _DEPTHS:
        if isinstance(vars(config).get(name), int):
            setattr(config, name, min(layers, vars(config)[name]))
    for part in _parts(config):
        _flatten(part)


def _narrow(config: Any) -> None:
    fields = vars(config)
    for name, width in _WIDTHS.items():
        if isinstance(fields.get(name), int):
            setattr(config, name, width)
    for name, value in list(fields.items()):
        if (
            name.endswith(("_token_id", "_token_index"))
            and isinstance(value, int)
            and value >= _WIDTHS["vocab_size"]
        ):
            setattr(config, name, 200 + sum(map(ord, name)) % 90)
    _turn_less(config, fields.get("rope_parameters"))
    for part in _parts(config):
        _narrow(part)


def _look_less(config: Any) -> None:
    """Small images, and features of layers that there are."""
    if hasattr(config, "vision_feature_layers"):
        config.vision_feature_layers = [-1, -2]
    for part in _parts(config):
        fields = vars(part)
        if "image_size" in fields and "patch_size" in fields:
            for name, size in (("image_size", 32), ("patch_size", 8)):
                setattr(part, name, [size, size] if isinstance(fields[name], list | tuple) else size)
        elif "patch_size" in fields and "spatial_merge_size" in fields:
            part.patch_size = 4
        _look_less(part)


def _turn_less(config: Any, rope: Any) -> None:
    """Rotary positions that fit the width of the heads."""
    if not isinstance(rope, dict):
        return
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if (
            each.get("rope_type") not in (None, "default", "proportional")
            and "axial" not in each["rope_type"]
        ):
            each["rope_type"] = "default"
        if each.get("mrope_section") or (each is rope and config.model_type.startswith(_SECTIONED)):
            width = vars(config).get("head_dim") or config.hidden_size // config.num_attention_heads
            half = int(width * each.get("partial_rotary_factor", 1.0)) // 2
            each["mrope_section"] = [half - 2 * (half // 4), half // 4, half // 4]
