"""Render records as one image: a grid of images with their text, for looking at data."""

import contextlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from weft.data.errors import InvalidArgumentError, MissingDependencyError
from weft.data.media.reference import MediaRef
from weft.data.media.video import read_frames
from weft.data.records.record import Record

_MARGIN = 8
_LINE = 14
_FONT_SIZE = 12
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf")
_PAPER = (255, 255, 255)
_INK = (30, 30, 30)
_EMPTY = (225, 225, 225)
_CUT = "…"

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    records: Sequence[Record],
    *,
    columns: int = 4,
    tile: int = 180,
    lines: int = 4,
    font: str | None = None,
    texts: Sequence[str] | None = None,
    require_media: bool = True,
) -> Image.Image:
    """Return a grid with one cell per record: its image or images above, its text below.

    Videos are shown by four frames, in rows; where they are not there or PyAV is not installed, by a grey field with
    their path. A text that is too long loses what comes before its last line, so that the answer stays.

    Args:
        records: What to show; choose a few dozen.
        columns: Cells per row.
        tile: Width and image height of a cell, pixels.
        lines: Greatest number of lines of text per cell.
        font: TrueType font file for the text; by default a common one of the system, or else Pillow's own,
            which draws Latin letters without accents only.
        texts: What to write below each record, instead of its own text.
        require_media: False shows images that are not there as such a field.

    Raises:
        InvalidArgumentError: If there is no record, or a size is not positive.
        CorruptMediaError: If an image or a video cannot be decoded.
    """
    if not records:
        raise InvalidArgumentError("`records` must hold at least one record, but is empty.")
    if min(columns, tile, lines) < 1:
        raise InvalidArgumentError(
            f"`columns`, `tile` and `lines` must be positive, but are {columns}, {tile} and {lines}."
        )
    face = load_font(font)
    written = [record.summary() for record in records] if texts is None else texts
    wrapped = [wrap_to_width(text, tile, lines, face) for text in written]
    rows = -(-len(records) // columns)
    height = tile + max(map(len, wrapped)) * _LINE + _MARGIN
    used = min(columns, len(records))
    sheet = Image.new("RGB", (used * (tile + _MARGIN) + _MARGIN, rows * (height + _MARGIN) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for position, record in enumerate(records):
        left = _MARGIN + position % columns * (tile + _MARGIN)
        top = _MARGIN + position // columns * (height + _MARGIN)
        _paste_media(sheet, record, left, top, tile, require_media, face)
        for number, line in enumerate(wrapped[position]):
            draw.text((left, top + tile + 4 + number * _LINE), line, fill=_INK, font=face)
    return sheet


def wrap_to_width(text: str, width: int, most: int, face: Face) -> list[str]:
    """Break a text at its blanks into lines of at most `width` pixels; words that are too wide break anywhere.

    Of more than `most` lines, the first ones stay and the end of the last.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if face.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while face.getlength(word) > width and len(word) > 1:
            fits = next(k for k in range(len(word) - 1, 0, -1) if k == 1 or face.getlength(word[:k]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    lines.append(line)
    if len(lines) <= most:
        return lines
    last = f"{_CUT} {lines[-1]}"
    while face.getlength(last) > width and len(last) > len(_CUT) + 1:
        last = _CUT + last[len(_CUT) + 1 :]
    return [*lines[: most - 1], last]


def load_font(path: str | None) -> Face:
    """The font of a sheet: a TrueType file, or a common one of the system, or else Pillow's own.

    Raises:
        InvalidArgumentError: If the file is no font.
    """
    if path is not None:
        try:
            return ImageFont.truetype(path, _FONT_SIZE)
        except OSError as error:
            raise InvalidArgumentError(
                f"`font` must be a TrueType font file, but {path!r} is not: {error}."
            ) from error
    for name in _FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, _FONT_SIZE)
    return ImageFont.load_default(_FONT_SIZE)


def _paste_media(
    sheet: Image.Image, record: Record, left: int, top: int, tile: int, require_media: bool, face: Face
) -> None:
    """Put the images of a record side by side, in the middle of their part of the cell, just above the text."""
    references = record.media_refs()
    width = max(1, tile // max(1, len(references)))
    for number, reference in enumerate(references):
        picture = _picture(reference, tile, require_media)
        if picture is None:
            picture = Image.new("RGB", (width - 1, tile), _EMPTY)
            path = "/".join(reference.path.split("/")[-2:])
            for line, words in enumerate(wrap_to_width(path, width - 9, tile // _LINE, face)):
                ImageDraw.Draw(picture).text((4, 4 + line * _LINE), words, fill=_INK, font=face)
        else:
            scale = min(width / picture.width, tile / picture.height)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            enlarged = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
            picture = picture.resize(size, enlarged)
        across, down = (width - picture.width) // 2, tile - picture.height
        sheet.paste(picture, (left + number * width + across, top + down))


def _picture(reference: MediaRef, tile: int, require_media: bool) -> Image.Image | None:
    """The image, or four frames of the video, two by two; None if there is nothing to show."""
    is_image = reference.kind == "image"
    if not (is_image and require_media) and not reference.exists():
        return None
    if is_image:
        image: Image.Image = reference.image(draft=tile)
        return image
    try:
        frames = np.pad(read_frames(reference, 4), ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    except MissingDependencyError:
        return None
    rows = [np.concatenate(list(pair), axis=1) for pair in (frames[:2], frames[2:])]
    return Image.fromarray(np.concatenate(rows))
