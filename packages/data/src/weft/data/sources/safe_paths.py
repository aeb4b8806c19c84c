"""Where paths in foreign files lead."""

import os
from contextlib import suppress
from pathlib import Path


def leads_to(path: str | os.PathLike[str]) -> Path | None:
    r"""Return where a path leads, links followed; None where there can be no such path.

    Somebody else wrote it: it may hold a zero, half of a surrogate pair, a link to itself, or more than a system takes.

    >>> leads_to("a\0b") is None
    True
    """
    try:
        place = Path(path).resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            place.lstat()  # tells names that are too long
    except (ValueError, OSError, RuntimeError):
        return None
    return place
