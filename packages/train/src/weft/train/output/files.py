"""Files that a command writes: whole or not at all, and one message where they cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.data.processes.atomic import whole_file
from weft.train.errors import RunError

PICTURES = (".eps", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp")


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

    Args:
        target: The file.
        argument: What the user calls it.

    Raises:
        RunError: If its suffix is no known one.
    """
    if target.suffix.lower() not in PICTURES:
        raise RunError(
            f"`{argument}` must end in one of {', '.join(PICTURES)}, but is {str(target)!r}. Write, say, "
            f"{target.stem or 'plot'}.png."
        )
