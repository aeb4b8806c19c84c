"""A zip or tar archive as a store: members are read in place, nothing is unpacked."""

import lzma
import os
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from weft.data.errors import CorruptMediaError, MissingFileError, UnsafePathError, redact
from weft.data.sources.folders import (
    accessed,
    file_identity,
    file_sketch,
    is_local,
    remote_version,
    strip_scheme,
    whereabouts,
)
from weft.data.sources.handles import cached
from weft.data.sources.limits import check_unpacked
from weft.data.sources.store import Store, is_below, safe_member, stream_digest, stream_sketch

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
_ENCRYPTED = 0x1
# What the archive modules raise for files that are damaged, or made to be, and for packing that they do not know.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ArchiveStore(Store):
    """A zip or tar archive, read member by member without unpacking.

    Args:
        url: Local path or fsspec URL of the archive (.zip, .tar, .tar.gz, .tgz).
        options: fsspec `storage_options`; never printed.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def read(self, path: str) -> bytes:
        """Return the content of one file; see `Store.read`."""
        return _archive(self).read(safe_member(path))

    def exists(self, path: str) -> bool:
        """Tell whether a member, or a folder of members, exists."""
        archive, name = _archive(self), safe_member(path)
        return name in archive.members or name in archive.folders

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below `prefix`, sorted."""
        return iter(sorted(name for name in _archive(self).members if is_below(name, safe_member(prefix))))

    def size(self, path: str) -> int:
        """Return the length of one file in bytes."""
        return _archive(self).size(safe_member(path))

    def place(self, path: str) -> str:
        """Return where a member is; nothing is opened."""
        return f"{whereabouts(self.url, self.options)}!{safe_member(path)}"

    def identity(self, path: str) -> str:
        """Return where the archive is, its size and its times, and the member's name; see `Store.identity`."""
        archive, name = _archive(self), safe_member(path)
        archive.size(name)
        return f"{archive.identity}!{name}"

    def sketch(self, path: str) -> str:
        """Return the checksum that a zip has of a member, or a sketch of what a tar holds; see `Store.sketch`."""
        return str(_archive(self).sketch(safe_member(path)))

    def describe(self, path: str = "") -> str:
        """Return the address of a file for messages, without credentials."""
        return redact(f"{strip_scheme(self.url)}!{path}" if path else strip_scheme(self.url))


class _Archive:
    """Members and handle of one archive in this process."""

    identity: str
    whole: str
    members: dict[str, Any]

    def __init__(self, label: str) -> None:
        self._label = label
        self.folders = {""}  # every one that holds a member, and the top
        for name in self.members:
            while "/" in name:
                name = name.rsplit("/", 1)[0]
                if name in self.folders:
                    break
                self.folders.add(name)

    def _member(self, path: str) -> Any:
        if path not in self.members:
            raise MissingFileError(f"File not found: {self._label}!{path}")
        return self.members[path]

    def _refuse_link(self, path: str) -> UnsafePathError:
        return UnsafePathError(
            f"Members of an archive must be plain files, but {path!r} of {self._label} is a link. "
            "Unpack the archive yourself and point `root` at the folder."
        )


class _Zip(_Archive):
    def __init__(self, stream: BinaryIO, label: str, packed: int) -> None:
        self._packed, self._zip = packed, zipfile.ZipFile(stream)
        self.members = {safe_member(i.filename): i for i in self._zip.infolist() if not i.is_dir()}
        super().__init__(label)

    def read(self, path: str) -> bytes:
        info = self._member(path)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise self._refuse_link(path)
        if info.flag_bits & _ENCRYPTED:
            raise CorruptMediaError(
                f"Members of an archive must be open to read, but {path!r} of {self._label} is encrypted. Unpack the "
                "archive with its password and point `root` at the folder."
            )
        # What the directory says of the packed size cannot exceed the archive; zipfile stops at the size it states.
        check_unpacked(info.file_size, min(info.compress_size, self._packed), f"{path} in {self._label}")
        try:
            return self._zip.read(info)
        except _DAMAGE as error:
            raise CorruptMediaError(
                f"Member {path!r} of {self._label} is damaged, or packed in a way that Python does not know: {error}. "
                "Get it again, or unpack it yourself."
            ) from error

    def size(self, path: str) -> int:
        return int(self._member(path).file_size)

    def sketch(self, path: str) -> str:
        info = self._member(path)
        return f"{info.file_size} {info.CRC:08x}"

    def close(self) -> None:
        stream = self._zip.fp
        self._zip.close()
        if stream is not None:
            stream.close()


class _Tar(_Archive):
    def __init__(self, stream: BinaryIO, label: str, packed: int) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self.members = {}  # offset and size of each
        self._links: set[str] = set()
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                check_unpacked(member.offset_data + member.size, packed, label)
                name = safe_member(member.name)
                if member.isreg():
                    self.members[name] = (member.offset_data, member.size)
                elif member.issym() or member.islnk():
                    self._links.add(name)
        super().__init__(label)

    def read(self, path: str) -> bytes:
        if path in self._links:
            raise self._refuse_link(path)
        offset, size = self._member(path)
        with self._lock:
            self._stream.seek(offset)
            data = self._stream.read(size)
        if len(data) != size:
            raise CorruptMediaError(f"Member {path!r} of {self._label} is cut short. Get the archive again.")
        return data

    def size(self, path: str) -> int:
        return int(self._member(path)[1])

    def sketch(self, path: str) -> str:
        offset, size = self._member(path)
        if self.whole:
            return f"{self.whole}!{offset} {size}"
        with self._lock:
            return stream_sketch(self._stream, offset, size)

    def close(self) -> None:
        self._stream.close()


def _archive(store: ArchiveStore) -> Any:
    return cached(store.url, store.options, lambda: _open_archive(store))


def _identities(store: ArchiveStore, label: str, stream: BinaryIO) -> tuple[str, str]:
    """What the archive was when it was opened, and what stands for all that is in it, where members are no cheaper."""
    if is_local(store.url):
        path = strip_scheme(store.url)
        # The last bytes of a gzip file are a checksum of all that it holds.
        return file_identity(path), file_sketch(path) if path.lower().endswith("gz") else ""
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(store.url, **store.options)
    with accessed(label):
        version = remote_version(filesystem.info(place))
    version = version or stream_digest(stream)
    return f"{label} {version}", version


def _open_archive(store: ArchiveStore) -> _Zip | _Tar:
    import fsspec

    label = store.describe()
    kind = _Zip if store.url.lower().endswith(".zip") else _Tar
    compression = "gzip" if store.url.lower().endswith("gz") else None
    with accessed(label):
        if is_local(store.url):
            packed = os.path.getsize(strip_scheme(store.url))
        else:
            filesystem, path = fsspec.core.url_to_fs(store.url, **store.options)
            packed = filesystem.size(path) or 0
        if is_local(store.url) and compression is None:
            stream: BinaryIO = open(strip_scheme(store.url), "rb")  # noqa: SIM115 - the handle outlives the call
        else:
            stream = fsspec.open(store.url, "rb", compression=compression, **store.options).open()
    try:
        archive = kind(stream, label, packed)
    except _DAMAGE as error:
        stream.close()
        if isinstance(error, CorruptMediaError | UnsafePathError):
            raise
        raise CorruptMediaError(f"Archive {label} is damaged: {error}. Get it again.") from error
    archive.identity, archive.whole = _identities(store, label, stream)
    return archive
