"""What the vision towers of transformers have in common: pixels to features with a place each."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig


def spatial_features(tower: nn.Module, pixel_values: Tensor) -> Tensor:
    """Features of a batch of images, shape `(batch, images, tokens, width)`, row by row, without a class token.

    Gradients flow if anything in the tower, a unit at one of its sites included, is trained.

    Args:
        tower: A vision model of transformers, convolutional or transformer.
        pixel_values: Shape `(batch, images, channels, height, width)`.
    """
    output: Tensor = tower(pixel_values=pixel_values.flatten(0, 1)).last_hidden_state
    if output.dim() == 4:
        output = output.flatten(2).mT
    elif _has_class_token(output):
        output = output[:, 1:]
    return output.unflatten(0, pixel_values.shape[:2])


def pooled_features(output: Any) -> Tensor:
    """One vector for each image of a vision model's output, shape `(images, width)`.

    It is what the model pools itself, else its class token, else the mean over places.
    """
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    states: Tensor = output.last_hidden_state
    if states.dim() == 4:
        return states.flatten(2).mean(2)
    return states[:, 0] if _has_class_token(states) else states.mean(1)


def feature_width(config: PreTrainedConfig) -> int:
    """Width of a vision model's last features; convolutional ones list a width per stage, or name the last one."""
    stages = getattr(config, "hidden_sizes", None)
    if stages:
        return int(stages[-1])
    return int(config.hidden_dim if config.model_type == "efficientnet" else config.hidden_size)


def _has_class_token(states: Tensor) -> bool:
    tokens = states.shape[1]
    return math.isqrt(tokens) ** 2 != tokens and math.isqrt(tokens - 1) ** 2 == tokens - 1
