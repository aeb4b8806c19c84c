"""How much one file may grow on opening: stated limits, each with a setting in the environment.

A file of a megabyte can open to gigabytes, by intent or by accident. What grows past its limit is refused with a
message before the memory is taken. Settings are variables of the environment, so that worker processes share them.
"""

import os

from weft.data.errors import CorruptMediaError, InvalidArgumentError

IMAGE_PIXELS = "WEFT_MAX_IMAGE_PIXELS"
RESIZED_PIXELS = "WEFT_MAX_RESIZED_PIXELS"
UNPACKED_MIB = "WEFT_MAX_UNPACKED_MIB"
GROWTH = 100
"""A packed file may always open to this many times its size."""
_DEFAULTS = {IMAGE_PIXELS: 178_956_970, RESIZED_PIXELS: 50_000_000, UNPACKED_MIB: 256}


def limit(setting: str) -> int:
    """Return the limit that a setting states, or its default.

    Args:
        setting: `IMAGE_PIXELS`, pixels of one picture; `RESIZED_PIXELS`, pixels of a picture after a resize of its
            short side; or `UNPACKED_MIB`, what any packed file may open to.

    Raises:
        InvalidArgumentError: If the environment states no positive number.
    """
    value = os.environ.get(setting, "")
    if not value:
        return _DEFAULTS[setting]
    if not value.isdecimal() or int(value[:18]) == 0:
        raise InvalidArgumentError(
            f"The environment variable `{setting}` must be a positive whole number, but is {value!r}. "
            f"Remove it for the default of {_DEFAULTS[setting]:,}."
        )
    return int(value[:18])


def check_pixels(width: int, height: int, name: str) -> None:
    """Refuse a picture of more pixels than the limit, before it is decoded; `name` is what messages call it.

    Raises:
        CorruptMediaError: If it has more than `IMAGE_PIXELS` says.
    """
    most = limit(IMAGE_PIXELS)
    if width * height > most:
        raise CorruptMediaError(
            f"{name} must have at most {most:,} pixels, but has {width} x {height}. Shrink it, or set {IMAGE_PIXELS} "
            "to more."
        )


def check_resize(width: int, height: int, short_side: int) -> None:
    """Refuse a picture that would grow past the limit when its short side is resized to so many pixels.

    Raises:
        CorruptMediaError: If the result has more pixels than `RESIZED_PIXELS` says.
    """
    most = limit(RESIZED_PIXELS)
    long_side = short_side * max(width, height) // max(1, min(width, height))
    if short_side * long_side > max(most, width * height):
        raise CorruptMediaError(
            f"A picture must have at most {most:,} pixels once its short side is resized to {short_side}, but one of "
            f"{width} x {height} has {long_side} x {short_side}. Leave it out, or set {RESIZED_PIXELS} to more."
        )


def check_made(width: int, height: int, what: str) -> None:
    """Refuse a setting by which every picture becomes larger than the limit; `what` is what messages call it.

    Raises:
        CorruptMediaError: If pictures get more pixels than `RESIZED_PIXELS` says.
    """
    most = limit(RESIZED_PIXELS)
    if width * height > most:
        raise CorruptMediaError(
            f"{what} must make pictures of at most {most:,} pixels, but makes them {width} x {height}. Correct it, or "
            f"set {RESIZED_PIXELS} to more."
        )


def unpacked_limit(packed: int) -> int:
    """Return how many bytes a packed file of so many may open to."""
    return max(limit(UNPACKED_MIB) * 2**20, GROWTH * packed)


def check_unpacked(size: int, packed: int, name: str) -> None:
    """Refuse a packed file that opens to more than its limit.

    Args:
        size: Bytes that it opens to.
        packed: Its own size in bytes.
        name: What messages call it.

    Raises:
        CorruptMediaError: If it opens to more than `UNPACKED_MIB` says, and to more than 100 times its size.
    """
    if size > unpacked_limit(packed):
        raise CorruptMediaError(
            f"{name} must open to at most {limit(UNPACKED_MIB):,} MiB or {GROWTH} times its size, but {packed:,} bytes "
            f"open to {size:,} or more. Unpack it yourself if you trust it, or set {UNPACKED_MIB} to more."
        )
