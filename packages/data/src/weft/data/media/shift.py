"""Random shifts of transformed images, for models that read small images."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InvalidArgumentError


@dataclass(frozen=True)
class RandomShift:
    """Move an image by some pixels along each axis; its edge is repeated.

    It works on arrays, after resize and normalisation, so that decoded images can be kept from epoch to epoch.

    Args:
        pixels: Greatest shift along each axis.

    Raises:
        InvalidArgumentError: If `pixels` is negative.
    """

    pixels: int = 0

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise InvalidArgumentError(
                f"`pixels` must be 0 or more, but is {self.pixels}. Give the greatest shift along each axis."
            )

    def __call__(self, image: NDArray[Any], generator: random.Random) -> NDArray[Any]:
        """Return a moved copy of an image of shape (channels, height, width), same shape and dtype."""
        height, width = image.shape[1:]
        down, right = (generator.randint(-self.pixels, self.pixels) for _ in range(2))
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        return image[:, rows[:, None], columns]
