"""From a record's images to what a model sees in training: cropped, mirrored and changed at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from weft.data.media.augment import RandAugment, RandomResizedCrop, flip, names_a_side
from weft.data.media.shift import RandomShift
from weft.eval.evaluate.visual import Images, Pixels, Visual, generators
from weft.eval.readers.image_processor import stacked

_APPLIED = 0.5


@dataclass(frozen=True)
class AugmentedPixels(Visual):
    """Images as they are in testing; in training a random crop, perhaps mirrored, and some of RandAugment.

    Args:
        pixels: Decoding and transform in testing; its transform gives all images one size.
        smallest_crop: Least share of the area in a crop.
        mirror: Mirror every second image, unless its text names a side.
        operations: Operations of RandAugment in a row, each applied in every second case.
        magnitude: Their strength, 0 to 10. Those that move things sideways are left out where a text names a side.

    Source: the training transforms of BLIP, which UniAdapter takes over. BLIP also mirrors, turns and moves images
        whose text names a side, and takes OpenCV's version of each operation.
    """

    pixels: Pixels
    smallest_crop: float = 0.5
    mirror: bool = True
    operations: int = 2
    magnitude: int = 5

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `pixel_values`, shape `(batch, images, 3, height, width)`, nothing drawn."""
        return self.pixels(images)

    def drawn(self, images: Images, names: Sequence[str], texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `pixel_values` of changed images, drawn by the name of each record and beside its text."""
        rows = [
            [self.pixels.transform(self.one(ref.image(), generator, text)) for ref in group]
            for group, generator, text in zip(images, generators(names), texts, strict=True)
        ]
        flat = stacked([pixels for row in rows for pixels in row])
        return {"pixel_values": flat.unflatten(0, (len(rows), -1))}

    def one(self, image: Image.Image, generator: random.Random, text: str) -> Image.Image:
        """A changed copy of an image that is beside a text, of the size that the transform makes."""
        transform = self.pixels.transform
        crop = RandomResizedCrop(
            transform.view_size(image), (self.smallest_crop, 1.0), resample=transform.resample
        )
        image = crop(image.convert("RGB"), generator)
        if self.mirror:
            image = flip(image, text, generator)
        change = RandAugment(1, self.magnitude, keep_sides=names_a_side(text))
        for _ in range(self.operations):
            # The operation is drawn in either case, so that one that is left out does not shift later draws.
            changed = change(image, generator)
            image = changed if generator.random() < _APPLIED else image
        return image


@dataclass(frozen=True)
class ShiftedPixels(Visual):
    """Images as another visual shows them, moved at random in training.

    Args:
        visual: Shows the images; what are no pixels is not moved.
        shift: Moves them.
    """

    visual: Visual
    shift: RandomShift

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return what the visual shows, nothing moved."""
        return self.visual(images)

    def drawn(self, images: Images, names: Sequence[str], texts: Sequence[str]) -> dict[str, Tensor]:
        """Return what the visual draws, each record's images moved one after another by the record's name."""
        made = self.visual.drawn(images, names, texts)
        if "pixel_values" not in made:
            return made
        moved = []
        for name, pixels in zip(names, made["pixel_values"].numpy(), strict=True):
            generator = random.Random(f"{name}/pixels")
            moved.append(np.stack([self.shift(image, generator) for image in pixels]))
        return made | {"pixel_values": torch.from_numpy(np.stack(moved))}
