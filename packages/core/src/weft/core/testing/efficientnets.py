"""A tiny EfficientNet, and the names that EfficientNet-Lite's original files give their tensors."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

_ORIGINAL = (
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
    """The tensors of a model as a file of EfficientNet-Lite holds them: without gates, and with a classifier.

    Args:
        model: An EfficientNet of transformers.
        classes: Classes of the classifier, whose weights are drawn.
    """
    found = {"_fc.weight": torch.randn(classes, 1280), "_fc.bias": torch.zeros(classes)}
    for name, value in model.state_dict().items():
        if "squeeze_excite" in name:
            continue
        for here, there in _ORIGINAL:
            name = name.replace(here, there)
        found[name] = value.clone()
    return found
