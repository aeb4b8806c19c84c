"""Augmentation of transformed images: a pure function of the image and a random number generator."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InvalidArgumentError


@dataclass(frozen=True)
class Augmentation:
    """Small changes that keep what an image shows.

    Args:
        shift: Greatest shift along each axis, pixels; the edge is repeated.
        flip: Whether half of the images are mirrored left to right.

    Raises:
        InvalidArgumentError: If `shift` is negative.
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise InvalidArgumentError(f"`shift` must be a number of pixels, 0 or more, but is {self.shift}.")

    def __call__(self, pixels: NDArray[Any], rng: random.Random) -> NDArray[Any]:
        """Change one image.

        Args:
            pixels: Shape (channels, height, width).
            rng: The only source of chance.

        Returns:
            An array of the same shape and dtype.
        """
        height, width = pixels.shape[1:]
        down, right = (rng.randint(-self.shift, self.shift) for _ in range(2))
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        if self.flip and rng.random() < 0.5:
            columns = columns[::-1]
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        return pixels[:, rows[:, None], columns]
