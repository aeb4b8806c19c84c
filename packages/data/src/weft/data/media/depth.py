"""Grey images of more than 8 bits to 8 bits: scaled by the range of their type, never cut off.

| values | range that becomes 0..255 |
|---|---|
| 16 bits, unsigned (PNG, PGM, TIFF, JPEG 2000) | 0..65535; of a TIFF of fewer bits, such as 12, as many as it states |
| 16 and 32 bits, signed (TIFF) | 0 to the greatest of the type, 32767 or 2147483647 |
| 32 bits, unsigned (TIFF) | 0..4294967295 |
| floating point (TIFF, PFM) | 0..1 |

Values outside the range are refused, and so are 32-bit integers that would all become 0 or 1: what their range is, only
their maker knows. Colour images of 16 bits a channel keep the upper 8, as Pillow reads them.
"""

from typing import Any

import numpy as np
from PIL import Image

from weft.data.errors import CorruptMediaError

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_SIGNED, _WHITE_IS_ZERO = 2, 0
_SIXTEEN = ("PNG", "PPM")


def to_eight_bits(image: Image.Image, name: str = "image") -> Image.Image:
    """Return the image with 8 bits a channel; one that has no more is returned as it is.

    What it was read from tells the range; `name` is what messages call it.

    Raises:
        CorruptMediaError: If the range of its values is not known, or they leave it.
    """
    if image.mode != "F" and image.mode != "I" and not image.mode.startswith("I;"):
        return image
    tags: Any = getattr(image, "tag_v2", {})
    greatest = _greatest(image, tags)
    if greatest is None:
        raise _unknown(name, f"are of mode {image.mode!r}")
    pixels = np.asarray(image)
    if greatest > np.iinfo(np.int32).max:
        pixels = pixels.astype(np.uint32)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= greatest):
        raise _unknown(name, f"reach from {low} to {high}, where their type gives 0 to {greatest}")
    if greatest > 2**16 and 0 < high <= greatest / 255:
        raise _unknown(name, f"reach to {high}, of {greatest} that their type has room for")
    levels = np.rint(pixels.astype(np.float64) * (255 / greatest)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels
    made = Image.fromarray(levels)
    clear = image.info.get("transparency")
    if clear is not None:
        made.putalpha(Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8)))
    return made


def _greatest(image: Image.Image, tags: Any) -> int | None:
    """The value that becomes white, or None where nothing tells it."""
    if image.mode == "F":
        return 1
    if tags:
        return int(2 ** (tags[_BITS][0] - (tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED)) - 1)
    sixteen = image.mode.startswith("I;16") or image.format in _SIXTEEN
    return 2**16 - 1 if sixteen else None


def _unknown(name: str, what: str) -> CorruptMediaError:
    return CorruptMediaError(
        f"{name} must hold values whose range is known, to be shown in 256 levels, but they {what}. Save it with 8 or "
        "16 bits a channel, or as floating point from 0 to 1."
    )
