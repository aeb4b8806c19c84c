"""Decode an encoded image to RGB with Pillow."""

import io

from PIL import Image, UnidentifiedImageError

from weft.data.errors import CorruptMediaError

WHITE = (255, 255, 255)


def decode_image(
    data: bytes,
    *,
    name: str = "image",
    background: tuple[int, int, int] = WHITE,
    draft: int | None = None,
) -> Image.Image:
    """Decode a PNG, JPEG, WebP or any other file that Pillow knows; the type is told by content.

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
