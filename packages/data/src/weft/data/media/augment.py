"""Random image transforms for training: crops, flips that respect the text, RandAugment.

Each takes its own `random.Random`, so that an augmented batch is a function of a seed and workers never share
one. Give `random.Random(f"{seed}/{epoch}/{record.id}")` for augmentation that survives a resume.
"""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps

from weft.data.errors import InvalidArgumentError
from weft.data.media.transforms import Resample, resize_to

_SIDES = re.compile(r"\b(left|right|leftmost|rightmost|lefthand|righthand)\b", re.IGNORECASE)
_ATTEMPTS = 10
_MAX_MAGNITUDE = 10
_GREY = (128, 128, 128)


def names_a_side(text: str) -> bool:
    """Tell whether a text speaks of left or right, as whole words.

    >>> names_a_side("Is the cup left of the plate?"), names_a_side("Is it bright?")
    (True, False)
    """
    return _SIDES.search(text) is not None


def flip(image: Image.Image, text: str, generator: random.Random, probability: float = 0.5) -> Image.Image:
    """Mirror the image with some probability, but never if the text names a side.

    Args:
        image: Any image.
        text: Question, caption or statement that goes with it.
        generator: Source of randomness; used in either case, so that the text does not shift later draws.
        probability: Chance of a flip, 0 to 1.
    """
    chosen = generator.random() < probability
    return ImageOps.mirror(image) if chosen and not names_a_side(text) else image


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a random part of random shape and resize it to a square, or to another fixed shape.

    Args:
        size: Side of the result, or its height and width; pixels.
        scale: Smallest and greatest share of the area.
        ratio: Smallest and greatest width divided by height.
        resample: Pillow filter.

    Source: the training crop of Szegedy et al. (CVPR 2015), with the usual ten attempts and a centre crop
        where none fits.
    """

    size: int | tuple[int, int] = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise InvalidArgumentError(
                "`scale` must be two shares in 0..1 and `ratio` two positive numbers, each in rising order, but are "
                f"{self.scale} and {self.ratio}."
            )

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        """Return an image of `size`."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return resize_to(image.crop(self.box(image.size, generator)), height, width, self.resample)

    def box(self, size: tuple[int, int], generator: random.Random) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) of the part, pixels, for an image of (width, height)."""
        width, height = size
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_ATTEMPTS):
            area = width * height * generator.uniform(*self.scale)
            ratio = math.exp(generator.uniform(low, high))
            part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < part_width <= width and 0 < part_height <= height:
                left = generator.randint(0, width - part_width)
                top = generator.randint(0, height - part_height)
                return left, top, left + part_width, top + part_height
        part_width = min(width, round(height * self.ratio[1]))
        part_height = min(height, round(part_width / self.ratio[0]))
        left, top = (width - part_width) // 2, (height - part_height) // 2
        return left, top, left + part_width, top + part_height


@dataclass(frozen=True)
class RandAugment:
    """Apply some operations, drawn at random, at one strength.

    Args:
        operations: How many are applied in a row.
        magnitude: Strength, 0 to 10.
        keep_sides: Leave out operations that move things sideways, for texts that name a side or a place.

    Source: Cubuk et al., RandAugment, 2020, with the operations that BLIP trains with. Each gives the pixels of
        torchvision's, to one level of 256. BLIP takes OpenCV's versions and skips each with probability 0.5.
    """

    operations: int = 2
    magnitude: int = 5
    keep_sides: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= _MAX_MAGNITUDE or self.operations < 0:
            raise InvalidArgumentError(
                f"`magnitude` must lie in 0..{_MAX_MAGNITUDE} and `operations` must not be negative, but are "
                f"{self.magnitude} and {self.operations}."
            )

    def __call__(self, image: Image.Image, generator: random.Random) -> Image.Image:
        """Return the changed image, same size, RGB."""
        image = image.convert("RGB")
        names = [name for name in OPERATIONS if not (self.keep_sides and name in _MOVING)]
        for name in generator.choices(names, k=self.operations):
            strength = self.magnitude / _MAX_MAGNITUDE
            signed = strength if generator.random() < 0.5 else -strength
            image = OPERATIONS[name](image, strength, signed)
        return image


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY
    )


OPERATIONS: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "identity": lambda image, strength, signed: image,
    "auto_contrast": lambda image, strength, signed: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, signed: ImageOps.equalize(image),
    "brightness": lambda image, strength, signed: ImageEnhance.Brightness(image).enhance(1 + 0.9 * signed),
    "sharpness": lambda image, strength, signed: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * signed),
    "rotate": lambda image, strength, signed: image.rotate(
        30 * signed, Image.Resampling.BILINEAR, fillcolor=_GREY
    ),
    "shear_x": lambda image, strength, signed: _affine(image, (1, 0.3 * signed, 0, 0, 1, 0)),
    "shear_y": lambda image, strength, signed: _affine(image, (1, 0, 0, 0.3 * signed, 1, 0)),
    "translate_x": lambda image, strength, signed: _affine(
        image, (1, 0, 0.3 * signed * image.width, 0, 1, 0)
    ),
    "translate_y": lambda image, strength, signed: _affine(
        image, (1, 0, 0, 0, 1, 0.3 * signed * image.height)
    ),
}
"""Operation name to function of (image, strength 0..1, strength with a random sign)."""
_MOVING = frozenset({"rotate", "shear_x", "translate_x"})
