"""Deterministic image transforms: resize, centre crop, rescale, normalise.

The arithmetic follows the Pillow image processors of `transformers` (same resampling calls, same rounding of
the long side, same placement of the crop); values agree to 1e-5. Nothing here needs torch.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weft.data.errors import InvalidArgumentError
from weft.data.sources.limits import check_resize

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Channel means of the CLIP training images, RGB, range 0..1."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel standard deviations of the CLIP training images."""

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
_FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Resample)}


def resize_short_side(image: Image.Image, size: int, resample: Resample = "bicubic") -> Image.Image:
    """Resize so that the short side has `size` pixels; the long side is rounded down.

    Raises:
        CorruptMediaError: If the long side would become so long that the image passes `WEFT_MAX_RESIZED_PIXELS`.
    """
    _positive("size", size)
    width, height = image.size
    check_resize(width, height, size)
    short, long = min(width, height), max(width, height)
    target_long = int(size * long / short)
    target = (size, target_long) if width <= height else (target_long, size)
    return image if target == image.size else image.resize(target, _FILTERS[resample])


def resize_square(image: Image.Image, size: int, resample: Resample = "bicubic") -> Image.Image:
    """Resize to `size` x `size` pixels, whatever the shape."""
    return resize_to(image, size, size, resample)


def resize_to(image: Image.Image, height: int, width: int, resample: Resample = "bicubic") -> Image.Image:
    """Resize to `height` x `width` pixels, whatever the shape."""
    _positive("size", min(height, width))
    return image if image.size == (width, height) else image.resize((width, height), _FILTERS[resample])


def center_crop(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Cut the middle `size` x `size` pixels; where the image is smaller, zeros are put around it.

    From shape (height, width, channels) to shape (size, size, channels), same dtype.
    """
    _positive("size", size)
    height, width = pixels.shape[:2]
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    cut = pixels[top : top + size, left : left + size]
    if cut.shape[:2] == (size, size):
        return cut
    canvas = np.zeros((size, size, *pixels.shape[2:]), dtype=pixels.dtype)
    above, before = -((cut.shape[0] - size) // 2), -((cut.shape[1] - size) // 2)
    canvas[above : above + cut.shape[0], before : before + cut.shape[1]] = cut
    return canvas


def normalize(
    pixels: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return (pixels / 255 - mean) / std, channels first.

    Args:
        pixels: Shape (height, width, channels), 0..255.
        mean: One value per channel.
        std: One value per channel, positive.

    Returns:
        Shape (channels, height, width), float32.
    """
    levels = np.arange(256, dtype=np.float64) / 255.0
    table = ((levels[None, :] - np.array(mean)[:, None]) / np.array(std)[:, None]).astype(np.float32)
    return np.stack([np.take(table[channel], pixels[..., channel]) for channel in range(pixels.shape[-1])])


@dataclass(frozen=True)
class ImageTransform:
    """An RGB image in, a normalised array out; a pure function with a fingerprint.

    Args:
        size: Target of the resize, pixels; None leaves the size.
        shape: "short_side" keeps the aspect ratio, "square" does not.
        crop: Side of the centre crop after the resize, pixels; None for no crop.
        mean: Channel means, range 0..1.
        std: Channel standard deviations.
        resample: Pillow filter.
    """

    size: int | None = 224
    shape: Literal["short_side", "square"] = "short_side"
    crop: int | None = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if self.resample not in _FILTERS:
            raise InvalidArgumentError(
                f"`resample` must be one of {', '.join(_FILTERS)}, but is {self.resample!r}."
            )
        if min(self.std) <= 0:
            raise InvalidArgumentError(f"`std` must be positive for every channel, but is {self.std}.")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the array of shape (3, height, width), float32."""
        if self.size is not None:
            resize = resize_square if self.shape == "square" else resize_short_side
            image = resize(image, self.size, self.resample)
        pixels = np.asarray(image.convert("RGB"))
        if self.crop is not None:
            pixels = center_crop(pixels, self.crop)
        return normalize(pixels, self.mean, self.std)

    def view_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the height and width that a random crop of an image is given, so that it need not be resized again."""
        side = self.size or self.crop or min(image.size)
        return side, side

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes whenever the output may change."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def _positive(name: str, value: int) -> None:
    if value <= 0:
        raise InvalidArgumentError(f"`{name}` must be a positive number of pixels, but is {value}.")
