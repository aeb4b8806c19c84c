"""Decode an encoded image to RGB with Pillow; whole JPEGs with simplejpeg where it is installed (extra `fast`)."""

import io
import struct
import zlib
from functools import cache
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from weft.data.errors import CorruptMediaError
from weft.data.media.depth import to_eight_bits
from weft.data.sources.limits import IMAGE_PIXELS, check_pixels, limit

WHITE = (255, 255, 255)
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""The formats that are read. Pillow knows more, and hands some of them (EPS, WMF) to other programs."""

_JPEG = b"\xff\xd8\xff"
# What the format's decoders raise for files that are damaged, or made to be.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def decode_image(
    data: bytes, *, name: str = "image", background: tuple[int, int, int] = WHITE, draft: int | None = None
) -> Image.Image:
    """Decode an image, turned upright as its Exif orientation says; the format is detected from content.

    A whole colour or grey JPEG is decoded by simplejpeg where that is installed: the same pixels, in less time.

    Args:
        data: The encoded file, in one of `FORMATS`; of several frames or pages the first is taken.
        name: What messages call it.
        background: Colour behind transparent pixels, 0 to 255 per channel.
        draft: If given, a JPEG may be decoded at a reduced scale whose short side is still at least this
            many pixels.

    Returns:
        An RGB image, wholly decoded. Values of more than 8 bits are scaled by the range of their type; see `to_rgb`.

    Raises:
        CorruptMediaError: If the file is cut short, no image, one whose range of values is not known, or one of more
            pixels than `WEFT_MAX_IMAGE_PIXELS` (178,956,970 where it is not set).
    """
    try:
        with open_image(data, name) as image:
            quick = None if draft is not None else _decode_jpeg(data)
            if quick is not None:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                if orientation != 1:
                    quick.getexif()[ExifTags.Base.Orientation] = orientation
                    ImageOps.exif_transpose(quick, in_place=True)
                return quick
            if draft is not None and image.format == "JPEG":
                scale = draft / min(image.size)
                image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image, background, name)
    except CorruptMediaError:
        raise
    except _DAMAGE as error:
        raise CorruptMediaError(
            f"{name} must be a whole image, but cannot be decoded: {error}. Get the file again."
        ) from error


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Open an image in one of `FORMATS` without decoding it; `name` is what messages call it.

    Raises:
        CorruptMediaError: If it is in none of these formats, or has too many pixels; see `decode_image`.
    """
    most = limit(IMAGE_PIXELS)
    if Image.MAX_IMAGE_PIXELS is not None and most > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow refuses from twice its own limit on, which holds for the whole process.
        Image.MAX_IMAGE_PIXELS = most
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise CorruptMediaError(
            f"{name} must be a whole image ({', '.join(FORMATS)}), but is not. Get the file again, or convert it."
        ) from None
    except Image.DecompressionBombError as error:
        raise CorruptMediaError(
            f"{name} must have at most {most:,} pixels, but has more: {error} Shrink it, or set {IMAGE_PIXELS} to more."
        ) from error
    except _DAMAGE as error:
        raise CorruptMediaError(
            f"{name} must be a whole image, but cannot be opened: {error}. Get the file again."
        ) from error
    check_pixels(*image.size, name)
    return image


@cache
def _formats() -> list[str]:
    """Those that this build of Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decode_jpeg(data: bytes) -> Image.Image | None:
    """The image if simplejpeg is there and decodes it, else None: Pillow has the last word on what is damaged."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not data.startswith(_JPEG):
        return None
    try:
        _, _, colors, _ = simplejpeg.decode_jpeg_header(data)
        known = colors in ("YCbCr", "Gray")
        return Image.fromarray(simplejpeg.decode_jpeg(data)) if known else None
    except ValueError:
        return None


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE, name: str = "image") -> Image.Image:
    """Return the image in RGB; transparency is composited over `background`.

    Args:
        image: Any mode, also palette, grey, alpha, and grey of 16 or 32 bits or floating point.
        background: Colour under transparent pixels, 0 to 255 per channel.
        name: What messages call it.

    Raises:
        CorruptMediaError: If its values have more than 8 bits and no known range; see `weft.data.media.depth`.
    """
    image = to_eight_bits(image, name)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*background, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")
