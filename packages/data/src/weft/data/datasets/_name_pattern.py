"""Paths of images by a pattern, where they have other names than a data set's own."""

import re
import string

from weft.data.errors import InvalidArgumentError
from weft.data.media.reference import MediaRef
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source

_ZEROS = re.compile(r"0?(?P<digits>[0-9]{1,2})d?")


class NamePattern:
    """A path with fields of a row in braces, such as `images/{image_id:04}.png`: filled up with zeros to four places.

    `option` is the name of the option that gives it, for messages.

    Raises:
        InvalidArgumentError: If it has no field, or something else than a field and a number in braces.
    """

    def __init__(self, option: str, pattern: str) -> None:
        self._option, self._pieces = option, list[tuple[str, str | None, int]]()
        try:
            for literal, word, form, conversion in string.Formatter().parse(pattern):
                digits = _ZEROS.fullmatch(form or "1")
                if digits is None or conversion or (word is not None and not re.fullmatch(r"\w+", word)):
                    raise ValueError("a field is followed by something else than its number of digits")
                self._pieces.append((literal, word, int(digits["digits"])))
            if all(word is None for _, word, _ in self._pieces):
                raise ValueError("it names no field")
        except ValueError as error:
            raise InvalidArgumentError(
                f"`{option}` must be a path with fields of the rows in braces, such as 'images/{{image_id:04}}.png', "
                f"but is {pattern!r}: {error}."
            ) from None

    def image(self, source: Source, row: Row) -> MediaRef:
        """Return the image of a row.

        Raises:
            MalformedRecordError: If the row lacks a field.
            MissingFileError: If the image is not there, and media are required.
            UnsafePathError: If the path leaves the root.
        """
        path = "".join(
            literal + ("" if word is None else row.identity(word).zfill(digits))
            for literal, word, digits in self._pieces
        )
        image = MediaFolder(source.store).named_by(row, path)
        if source.require_media and not image.exists():
            row.fail(f"its image must be at {image.uri}, by `{self._option}`, but is not")
        return image
