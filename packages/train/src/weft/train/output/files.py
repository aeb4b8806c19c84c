"""Files that a command writes: whole or not at all, and one message where they cannot be; and digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.data.processes.atomic import whole_file
from weft.train.errors import RunError

PICTURES = (".eps", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written(target: Path, argument: str) -> Iterator[Path]:
    """Give a temporary name of the same suffix, and rename it to the target when the `with` block ends well.

    Args:
        target: The file; folders above it are made.
        argument: What the user calls it.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        with whole_file(target) as partial:
            yield partial
    except OSError as error:
        raise RunError(
            f"`{argument}` must be a file that can be written, but {target} cannot be: {error}. Name another."
        ) from None


def check_picture(target: Path, argument: str) -> None:
    """Refuse a picture of a kind that nothing draws, before any work.

    Raises:
        RunError: If its suffix is no known one.
    """
    if target.suffix.lower() not in PICTURES:
        raise RunError(
            f"`{argument}` must end in one of {', '.join(PICTURES)}, but is {str(target)!r}. Write, say, "
            f"{target.stem or 'plot'}.png."
        )
