"""From a record's images to what a model sees in training: cropped, mirrored and changed at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from weft.data.media.augment import RandAugment, RandomResizedCrop, flip, names_a_side
from weft.eval.evaluate.visual import Images, Pixels
from weft.eval.readers.image_processor import stacked

_APPLIED = 0.5


@dataclass(frozen=True)
class AugmentedPixels:
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

    def drawn(
        self, images: Images, generators: Sequence[random.Random], texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return `pixel_values` of changed images, by the generator of each record and beside its text."""
        rows = [
            [self.pixels.transform(self.one(ref.image(), generator, text)) for ref in group]
            for group, generator, text in zip(images, generators, texts, strict=True)
        ]
        flat = stacked([pixels for row in rows for pixels in row])
        return {"pixel_values": flat.unflatten(0, (len(rows), -1))}

    def one(self, image: Image.Image, generator: random.Random, text: str) -> Image.Image:
        """A changed copy of an image, of the size that the transform makes.

        Args:
            image: Any image.
            generator: The only source of randomness.
            text: What is said about it.
        """
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
