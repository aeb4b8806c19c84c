"""What the vision towers of transformers have in common: pixels to features with a place each."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig


def spatial_features(tower: nn.Module, pixel_values: Tensor) -> Tensor:
    """Run a vision tower on the images of a batch.

    Gradients flow if anything in the tower, a unit at one of its sites included, is trained.

    Args:
        tower: A vision model of transformers, convolutional or transformer.
        pixel_values: Shape `(batch, images, channels, height, width)`.

    Returns:
        Shape `(batch, images, tokens, width)`, row by row. A class token is left out.
    """
    output: Tensor = tower(pixel_values=pixel_values.flatten(0, 1)).last_hidden_state
    if output.dim() == 4:
        output = output.flatten(2).mT
    elif not _is_square(output.shape[1]) and _is_square(output.shape[1] - 1):
        output = output[:, 1:]
    return output.unflatten(0, pixel_values.shape[:2])


def pooled_features(output: Any) -> Tensor:
    """One vector for each image: what the model pools itself, else its class token, else the mean over places.

    Args:
        output: What a vision model of transformers returns.

    Returns:
        Shape `(images, width)`.
    """
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    states: Tensor = output.last_hidden_state
    if states.dim() == 4:
        return states.flatten(2).mean(2)
    has_class_token = not _is_square(states.shape[1]) and _is_square(states.shape[1] - 1)
    return states[:, 0] if has_class_token else states.mean(1)


def feature_width(config: PreTrainedConfig) -> int:
    """Width of a vision model's last features; convolutional ones list a width per stage, or name the last one.

    Args:
        config: Its config.
    """
    stages = getattr(config, "hidden_sizes", None)
    if stages:
        return int(stages[-1])
    last = "hidden_dim" if config.model_type == "efficientnet" else "hidden_size"
    return int(getattr(config, last))


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
