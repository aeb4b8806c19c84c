"""Decode an encoded image to RGB with Pillow; whole JPEGs with simplejpeg where it is installed (extra `fast`)."""

import io
from functools import cache
from typing import Any

from PIL import Image, UnidentifiedImageError

from weft.data.errors import CorruptMediaError

WHITE = (255, 255, 255)
_JPEG = b"\xff\xd8\xff"


def decode_image(
    data: bytes,
    *,
    name: str = "image",
    background: tuple[int, int, int] = WHITE,
    draft: int | None = None,
) -> Image.Image:
    """Decode a PNG, JPEG, WebP or any other file that Pillow knows; the type is told by content.

    A whole colour or grey JPEG is decoded by simplejpeg where that is installed: the same pixels, in less time.

    Args:
        data: The encoded file.
        name: What messages call it.
        background: Colour that transparent pixels are laid upon, 0 to 255 per channel.
        draft: If given, a JPEG may be decoded at a reduced scale whose short side is still at least this
            many pixels.

    Returns:
        An RGB image, wholly decoded.

    Raises:
        CorruptMediaError: If the file is cut short or no image.
    """
    quick = None if draft is not None else _decode_jpeg(data)
    if quick is not None:
        return quick
    try:
        with Image.open(io.BytesIO(data)) as image:
            if draft is not None and image.format == "JPEG":
                scale = draft / min(image.size)
                image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            image.load()
            return to_rgb(image, background)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptMediaError(
            f"{name} must be a whole image, but cannot be decoded: {error}. Get the file again."
        ) from error


def _decode_jpeg(data: bytes) -> Image.Image | None:
    """The image if simplejpeg is there and decodes it, else None: Pillow has the last word on what is damaged."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not data.startswith(_JPEG):
        return None
    try:
        _, _, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in ("YCbCr", "Gray"):
            return None
        return Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        return None


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return the image in RGB; transparency is composited over `background`.

    Args:
        image: Any mode, also palette, grey and alpha.
        background: Colour under transparent pixels, 0 to 255 per channel.
    """
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*background, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")
