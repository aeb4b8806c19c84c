"""What every place of files can do, and the rule that paths from data stay inside it."""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from weft.data.errors import MissingFileError, UnsafePathError

_PIECE = 2**20
_PART = 2**12


def safe_member(path: str) -> str:
    """Return `path` in plain relative form, or refuse it.

    Args:
        path: A path inside a folder or archive, with `/` as separator.

    Raises:
        UnsafePathError: If it is absolute, holds `..`, a drive letter or a zero byte.

    >>> safe_member("./images/a.png")
    'images/a.png'
    """
    parts = path.replace("\\", "/").split("/")
    has_drive = len(parts[0]) == 2 and parts[0][1] == ":"
    if path.startswith(("/", "\\")) or ".." in parts or has_drive or "\x00" in path:
        raise UnsafePathError(
            f"`path` must stay inside its folder or archive, but is {path!r}. "
            "Repair the annotation file or the archive it comes from."
        )
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def stream_digest(stream: BinaryIO) -> str:
    """Return the SHA-256 of a stream from its position; memory holds a piece of it."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def stream_sketch(stream: BinaryIO, start: int, size: int) -> str:
    """Return the size of a file and a digest of its first, middle and last 4 KiB: small files are read whole.

    It begins at the byte `start` of a seekable stream.
    """
    digest = hashlib.sha256()
    for place in sorted({0, max(0, (size - _PART) // 2), max(0, size - _PART)}):
        stream.seek(start + place)
        digest.update(stream.read(min(_PART, size - place)))
    return f"{size} {digest.hexdigest()}"


class Store(ABC):
    """A place that holds files under relative paths. Subclasses are picklable and open nothing early.

    What looks at one file raises as `read` does.
    """

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of one file.

        Raises:
            MissingFileError: If there is no such file.
            UnsafePathError: If the path leaves the store.
            CorruptMediaError: If the archive is damaged there.
        """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether a file (or, in a folder, a directory) of that path exists."""

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below `prefix`, sorted."""

    @abstractmethod
    def describe(self, path: str = "") -> str:
        """Return the address of a file for messages, without credentials."""

    def place(self, path: str) -> str:
        """Return what tells a file from every other one of this process, without opening it if that can be.

        By default this is a digest of the content, which is always right; a store that knows where a file is stored is
        cheaper.
        """
        return self.content(path)

    def identity(self, path: str) -> str:
        """Return what caches that outlive the process go by: `place`, and what a replaced file has another of.

        Where a file lies outside of the store's own control, that is its size and its times, or its digest.
        """
        return self.place(path)

    def content(self, path: str) -> str:
        """Return a digest of one file's content."""
        with self.open(path) as stream:
            return f"sha256:{stream_digest(stream)}"

    def sketch(self, path: str) -> str:
        """Return what tells a file from another one in its place, at little cost, wherever it is, whatever its age.

        By default this is a digest of the content. Stores of many files read less: their size and a few pieces, or the
        checksum of an archive's own.
        """
        return self.content(path)

    def open(self, path: str) -> BinaryIO:
        """Return a seekable binary stream of one file; by default its bytes in memory."""
        return io.BytesIO(self.read(path))

    def size(self, path: str) -> int:
        """Return the length of one file in bytes."""
        return len(self.read(path))


@dataclass(frozen=True)
class BytesStore(Store):
    """Files that are already in memory, such as images embedded in Parquet rows; messages call them by the label."""

    files: Mapping[str, bytes] = field(repr=False)
    label: str = "memory"
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, path: str) -> bytes:
        """Return the content of one file; see `Store.read`."""
        try:
            return self.files[path]
        except KeyError:
            raise MissingFileError(
                f"`path` must name a file of {self.label}, but {path!r} is not there."
            ) from None

    def exists(self, path: str) -> bool:
        """Tell whether the file exists."""
        return path in self.files

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below `prefix`, sorted."""
        return iter(sorted(name for name in self.files if is_below(name, prefix)))

    def describe(self, path: str = "") -> str:
        """Return the address of a file for messages, without credentials."""
        return f"{self.label}:{path}"

    def content(self, path: str) -> str:
        """Return a digest of one file's content, computed once."""
        if path not in self._digests:
            self._digests[path] = super().content(path)
        return self._digests[path]

    def __hash__(self) -> int:
        return hash((self.label, tuple(self.files)))


def is_below(name: str, prefix: str) -> bool:
    """Tell whether the path `name` is `prefix` or below it."""
    return not prefix or name == prefix or name.startswith(prefix.rstrip("/") + "/")
