"""From a record's images to what a model sees: decoded pixels, or features extracted once."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from weft.data import MediaRef
from weft.eval.readers.image_processor import Transform, stacked

Images = Sequence[Sequence[MediaRef]]


class Visual(ABC):
    """Turns the images of a batch into model inputs."""

    @abstractmethod
    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return model inputs for a batch in which every example has the same number of images."""

    def drawn(self, images: Images, names: Sequence[str], texts: Sequence[str]) -> dict[str, Tensor]:
        """Return model inputs for a training batch; by default nothing is drawn.

        Args:
            images: Images of each example.
            names: What is drawn for each example follows from its name and nothing else.
            texts: What each example reads.
        """
        return self(images)


def generators(names: Sequence[str]) -> list[random.Random]:
    """What draws the pictures of each example, by its name alone."""
    return [random.Random(f"{name}/frames") for name in names]


@dataclass(frozen=True)
class Pixels(Visual):
    """Decodes and transforms images for a model with a vision tower.

    Args:
        transform: Resize and normalisation.
        keep_mib: Decoded images are kept in memory up to this many MiB, so that later epochs need not decode.
    """

    transform: Transform
    keep_mib: float = 0.0
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def pixels(self, images: Sequence[MediaRef]) -> Tensor:
        """Pixels of some images, shape `(images, 3, height, width)`."""
        return stacked([self._one(ref) for ref in images])

    def _one(self, ref: MediaRef) -> Any:
        place = ref.place if self.keep_mib or self._kept else ""
        if place in self._kept:
            return self._kept[place]
        pixels = self.transform(ref.image())
        if (len(self._kept) + 1) * pixels.nbytes <= self.keep_mib * 2**20:
            self._kept[place] = pixels
        return pixels

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `pixel_values`, shape `(batch, images, 3, height, width)`."""
        flat = self.pixels([ref for group in images for ref in group])
        return {"pixel_values": flat.unflatten(0, (len(images), -1))}


@dataclass(frozen=True)
class Blank(Visual):
    """Zeros in the shape of features, to see what language alone can do.

    Args:
        shape: Of the features of one image, `(tokens, width)`.
    """

    shape: tuple[int, ...]

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `visual_features`, shape `(batch, images, tokens, width)`, fp16; models cast."""
        return {"visual_features": torch.zeros(len(images), len(images[0]), *self.shape, dtype=torch.float16)}
