"""The readers by name: loaded when they are asked for, alphabetical, open to third parties.

A reader is one module of `weft.eval.readers.ways`, or the object behind an entry point of the group `weft.readers`, or
whatever `register_reader` was given. No list of names is kept anywhere.
"""

from __future__ import annotations

from weft.core.errors import unknown
from weft.core.registry import Registry
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.reader import Reader

ENTRY_POINT_GROUP = "weft.readers"
READERS: Registry[type[Reader]] = Registry(
    "`name` of a reader", ReaderError, "weft.eval.readers.ways", attribute="READER", group=ENTRY_POINT_GROUP
)


def register_reader(reader: type[Reader], *, replace: bool = False) -> type[Reader]:
    """Make a reader known by its `name`.

    Args:
        reader: The class.
        replace: Allow a name that is taken.

    Raises:
        ReaderError: If the name is taken.
    """
    READERS.register(reader.name, reader, replace=replace)
    return reader


def readers() -> Registry[type[Reader]]:
    """All readers by name."""
    return READERS


def reader(name: str) -> type[Reader]:
    """The class of a reader.

    Args:
        name: A name of `readers()`.

    Raises:
        ReaderError: With near matches, if there is none of that name.
    """
    if name not in READERS:
        raise ReaderError(unknown("`reader`", name, ["auto", *READERS]))
    return READERS[name]
