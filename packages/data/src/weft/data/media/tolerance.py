"""Skip damaged media, counted and named, up to a stated limit; never a silent replacement."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from weft.data.errors import CorruptMediaError, InvalidArgumentError

_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


class CorruptMediaCounter:
    """Leaves damaged items out of a batch and counts them; stops the run past a limit.

    Each worker process counts for itself.

    Args:
        limit: Greatest number of damaged items; 0 stops at the first.

    >>> CorruptMediaCounter(limit=3).decode([1, 2], lambda item: item * 10)
    [(1, 10), (2, 20)]
    """

    def __init__(self, limit: int = 0) -> None:
        if limit < 0:
            raise InvalidArgumentError(f"`limit` must not be negative, but is {limit}.")
        self.limit = limit
        self.damaged: list[str] = []

    def decode(self, items: Iterable[T], decode: Callable[[T], R]) -> list[tuple[T, R]]:
        """Return (item, decoded) for every item that could be decoded; `decode` raises `CorruptMediaError` for others.

        Raises:
            CorruptMediaError: When the limit is passed, naming every damaged item so far.
        """
        found = []
        for item in items:
            try:
                found.append((item, decode(item)))
            except CorruptMediaError as error:
                self.damaged.append(str(error))
                _log.warning("left out (%d of at most %d): %s", len(self.damaged), self.limit, error)
                if len(self.damaged) > self.limit:
                    listing = "\n  ".join(self.damaged)
                    raise CorruptMediaError(
                        f"At most {self.limit} damaged media are allowed, but there are {len(self.damaged)}:\n  "
                        f"{listing}\nGet these files again, or raise the limit."
                    ) from error
        return found
