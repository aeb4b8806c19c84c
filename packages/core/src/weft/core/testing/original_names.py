"""Tensors by the names of the original files of EfficientNet-Lite and BLIP, and a tiny EfficientNet."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

_LITE = (
    ("embeddings.convolution", "_conv_stem"),
    ("embeddings.batchnorm", "_bn0"),
    ("encoder.top_conv", "_conv_head"),
    ("encoder.top_bn", "_bn1"),
    ("encoder.blocks", "_blocks"),
    ("expansion.expand_conv", "_expand_conv"),
    ("expansion.expand_bn", "_bn0"),
    ("depthwise_conv.depthwise_conv", "_depthwise_conv"),
    ("depthwise_conv.depthwise_norm", "_bn1"),
    ("projection.project_conv", "_project_conv"),
    ("projection.project_bn", "_bn2"),
)

_BLIP = (
    ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
    ("vision_model.post_layernorm", "visual_encoder.norm"),
    ("vision_model.encoder.layers", "visual_encoder.blocks"),
    ("self_attn.qkv", "attn.qkv"),
    ("self_attn.projection", "attn.proj"),
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
)


def tiny_efficientnet() -> Any:
    """A model of four blocks, with and without a stream."""
    config = transformers.EfficientNetConfig(
        image_size=32,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, 8],
        out_channels=[8, 16],
        kernel_sizes=[3, 3],
        strides=[1, 2],
        num_block_repeats=[2, 2],
        expand_ratios=[1, 2],
        depthwise_padding=[],
        hidden_dim=1280,
    )
    return transformers.EfficientNetModel(config)


def original_lite(model: Any, classes: int) -> dict[str, Tensor]:
    """The tensors of a model as a file of EfficientNet-Lite holds them: without gates, and with a classifier."""
    found = {"_fc.weight": torch.randn(classes, 1280), "_fc.bias": torch.zeros(classes)}
    for name, value in model.state_dict().items():
        if "squeeze_excite" in name:
            continue
        for here, there in _LITE:
            name = name.replace(here, there)
        found[name] = value.clone()
    return found


def original_blip(model: Any) -> dict[str, Tensor]:
    """The tensors of a BLIP, by the names that BLIP's own code gives those of its vision tower."""
    found = {}
    for name, value in model.state_dict().items():
        for here, there in _BLIP if name.startswith("vision_model.") else ():
            name = name.replace(here, there)
        found[name] = value
    return found
