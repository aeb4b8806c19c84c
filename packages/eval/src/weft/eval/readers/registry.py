"""The readers by name: loaded when they are asked for, alphabetical, open to third parties.

A reader is one module of `weft.eval.readers.ways`, or the object behind an entry point of the group `weft.readers`, or
whatever `register_reader` was given. No list of names is kept anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import entry_points

from weft.core.errors import unknown
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.reader import Reader

ENTRY_POINT_GROUP = "weft.readers"
_WAYS = "weft.eval.readers.ways"

_registered: dict[str, type[Reader]] = {}


def register_reader(reader: type[Reader], *, replace: bool = False) -> type[Reader]:
    """Make a reader known by its `name`.

    Args:
        reader: The class.
        replace: Allow a name that is taken.

    Raises:
        ReaderError: If the name is taken.
    """
    if not replace and reader.name in readers() and _registered.get(reader.name) is not reader:
        raise ReaderError(
            f"`name` of a reader must be unique, but {reader.name!r} is taken. Choose another, or pass replace=True."
        )
    _registered[reader.name] = reader
    return reader


class _Readers(Mapping[str, type[Reader]]):
    """A read-only view: name to class, imported at the first look."""

    def __getitem__(self, name: str) -> type[Reader]:
        return self._loaders()[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaders()))

    def __len__(self) -> int:
        return len(self._loaders())

    def __contains__(self, name: object) -> bool:
        return name in self._loaders()

    @staticmethod
    def _loaders() -> dict[str, Callable[[], type[Reader]]]:
        ways = importlib.import_module(_WAYS)
        found: dict[str, Callable[[], type[Reader]]] = {
            module.name: partial(_own, module.name) for module in pkgutil.iter_modules(ways.__path__)
        }
        found |= {entry.name: entry.load for entry in entry_points(group=ENTRY_POINT_GROUP)}
        return found | {name: partial(_registered.__getitem__, name) for name in _registered}


def _own(name: str) -> type[Reader]:
    reader: type[Reader] = importlib.import_module(f"{_WAYS}.{name}").READER
    return reader


def readers() -> Mapping[str, type[Reader]]:
    """All readers by name."""
    return _Readers()


def reader(name: str) -> type[Reader]:
    """The class of a reader.

    Args:
        name: A name of `readers()`.

    Raises:
        ReaderError: With near matches, if there is none of that name.
    """
    known = readers()
    if name not in known:
        raise ReaderError(unknown("`reader`", name, ["auto", *known]))
    return known[name]
