"""What the vision towers of transformers have in common: pixels to features with a place each."""

from __future__ import annotations

import math

from torch import Tensor, nn


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


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
