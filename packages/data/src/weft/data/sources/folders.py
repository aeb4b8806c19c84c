"""A folder as a store: on disk, or under any URL that fsspec knows."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, cast

from weft.data.errors import MissingFileError, StoreAccessError, UnsafePathError, WeftDataError, redact
from weft.data.sources.handles import cached
from weft.data.sources.store import Store, safe_member, stream_sketch

_NOT_FOUND = 404
# Tags, digests and times of S3, GCS, Azure, HTTP, SSH, WebDAV, the hub and fsspec's memory, without - and _.
_VERSIONS = (
    *("etag", "contentmd5", "digest", "md5", "md5hash", "crc32c", "checksum", "ukey", "blobid", "versionid"),
    *("generation", "lastmodified", "mtime", "modified", "updated", "created"),
)


@dataclass(frozen=True)
class FolderStore(Store):
    """A folder on disk or under any fsspec URL.

    Args:
        url: Local path or URL such as `s3://bucket/data`.
        options: fsspec `storage_options`; never printed.
        follow_links: Allow symbolic links inside the folder that lead out of it.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    follow_links: bool = False

    def read(self, path: str) -> bytes:
        """Return the content of one file; see `Store.read`."""
        with self.open(path) as stream, accessed(self.describe(path)):
            return stream.read()

    def open(self, path: str) -> BinaryIO:
        """Return a seekable binary stream of one file; see `Store.read` for errors."""
        path = safe_member(path)
        with accessed(self.describe(path)):
            if is_local(self.url):
                return open(self._local(path), "rb")
            filesystem, place = self._remote(path)
            return cast("BinaryIO", filesystem.open(place, "rb"))

    def exists(self, path: str) -> bool:
        """Tell whether the file exists."""
        path = safe_member(path)
        if is_local(self.url):
            return os.path.exists(self._local(path))
        with accessed(self.describe(path)):
            filesystem, place = self._remote(path)
            return bool(filesystem.exists(place))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below `prefix`, sorted."""
        prefix = safe_member(prefix)
        if is_local(self.url):
            yield from self._walk(prefix)
            return
        with accessed(self.describe(prefix)):
            filesystem, base = _filesystem(self)
            found = sorted(filesystem.find(f"{base}/{prefix}".rstrip("/")))
        for name in found:
            yield name[len(base) :].lstrip("/")

    def size(self, path: str) -> int:
        """Return the length of one file in bytes."""
        path = safe_member(path)
        if is_local(self.url):
            return os.path.getsize(self._local(path))
        with accessed(self.describe(path)):
            filesystem, place = self._remote(path)
            return int(filesystem.size(place))

    def place(self, path: str) -> str:
        """Return where a file is; nothing is opened."""
        return f"{whereabouts(self.url, self.options)}/{safe_member(path)}"

    def identity(self, path: str) -> str:
        """Return where a file is, its size and its times; of a remote file, what its server says instead."""
        path = safe_member(path)
        with accessed(self.describe(path)):
            if is_local(self.url):
                # Looked at, not read: what a link leads to is refused where it is.
                return file_identity(os.path.join(strip_scheme(self.url), path))
            filesystem, place = self._remote(path)
            version = remote_version(filesystem.info(place))
        return f"{self.describe(path)} {version or self.content(path)}"

    def sketch(self, path: str) -> str:
        """Return the size of a file and a digest of three pieces; of a remote one, what its server says instead."""
        path = safe_member(path)
        try:
            if is_local(self.url):
                return file_sketch(self._near(path))
        except OSError:
            # Made where it is needed: a hundred thousand addresses take seconds.
            with accessed(self.describe(path)):
                raise
        with accessed(self.describe(path)):
            filesystem, place = self._remote(path)
            version = remote_version(filesystem.info(place))
        return version or self.content(path)

    def describe(self, path: str = "") -> str:
        """Return the address of a file for messages, without credentials."""
        url = strip_scheme(self.url)
        return redact(f"{url.rstrip('/')}/{path}" if path else url)

    def _remote(self, path: str) -> tuple[Any, str]:
        filesystem, base = _filesystem(self)
        return filesystem, f"{base}/{path}" if path else base

    def _local(self, path: str) -> str:
        root = strip_scheme(self.url)
        full = os.path.join(root, path)
        if self.follow_links:
            return full
        real_root, real = os.path.realpath(root), os.path.realpath(full)
        if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
            raise UnsafePathError(
                f"`path` must stay inside {self.describe()}, but {path!r} is a link that leads out of it. "
                "Pass follow_links=True if that is meant."
            )
        return full

    def _near(self, path: str) -> str:
        """As `_local`, at the cost of one look where thousands of files are in one folder."""
        full = os.path.join(strip_scheme(self.url), path)
        _check_folder(self, os.path.dirname(path))
        return self._local(path) if os.path.islink(full) else full

    def _walk(self, prefix: str) -> Iterator[str]:
        root = strip_scheme(self.url)
        found: list[str] = []
        for folder, _, names in os.walk(os.path.join(root, prefix), followlinks=self.follow_links):
            relative = os.path.relpath(folder, root).replace(os.sep, "/")
            found.extend(name if relative == "." else f"{relative}/{name}" for name in names)
        yield from sorted(found)


@lru_cache(maxsize=2**12)
def _check_folder(store: FolderStore, folder: str) -> None:
    """Refuse a folder that is a link out of its store; a refusal is not remembered."""
    store._local(folder)


@contextmanager
def accessed(address: str) -> Iterator[None]:
    """Turn what goes wrong in reaching a file into errors of this package, whose texts hold no credentials.

    Raises:
        MissingFileError: If there is no such file.
        StoreAccessError: If anything else fails. What the remote library said stays out of the traceback, because
            it contains signed URLs and keys.
    """
    try:
        yield
    except WeftDataError:
        raise
    except Exception as error:
        # fsspec calls every HTTP file that it cannot reach "not found", and keeps the reason as the cause.
        reason = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        absent = isinstance(reason, FileNotFoundError | IsADirectoryError | NotADirectoryError)
        if absent or getattr(reason, "status", None) == _NOT_FOUND:
            raise MissingFileError(f"File not found: {address}") from None
        raise StoreAccessError(
            f"{address} must be readable, but {type(reason).__name__}: {redact(str(reason)) or 'no reason given'}. "
            "Check the address, the rights and `storage_options`."
        ) from None


def _filesystem(store: FolderStore) -> tuple[Any, str]:
    import fsspec

    pair: tuple[Any, str] = cached(
        f"fs:{store.url}", store.options, lambda: fsspec.core.url_to_fs(store.url, **store.options)
    )
    return pair[0], pair[1].rstrip("/")


def whereabouts(url: str, options: Mapping[str, Any]) -> str:
    """Where a store is, only for comparisons within a process: it may contain credentials."""
    if is_local(url):
        return os.path.abspath(strip_scheme(url))
    own = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16] if options else ""
    return f"{url} {own}"


def file_identity(path: str) -> str:
    """Where a local file is, its size and its times, that of its last change of any kind among them.

    Raises:
        OSError: If it cannot be looked at.
    """
    seen = os.stat(path)
    return f"{os.path.abspath(path)} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}"


def file_sketch(path: str) -> str:
    """The size of a local file and a digest of its first, middle and last piece, whatever its name and times.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb", buffering=0) as stream:
        return stream_sketch(stream, 0, os.fstat(stream.fileno()).st_size)


def remote_version(info: Mapping[str, Any]) -> str:
    """What fsspec knows of a file, and would know otherwise of another in its place; "" if that is nothing."""
    said = {name.lower().replace("-", "").replace("_", ""): value for name, value in info.items()}
    known = {name: said[name] for name in _VERSIONS if said.get(name) is not None}
    told = {"size": said.get("size"), **known} if known else {}
    return " ".join(f"{name}={value}" for name, value in told.items())


def is_local(url: str) -> bool:
    """Tell whether a root is a path of this machine."""
    return url.startswith("file://") or "://" not in url


def strip_scheme(url: str) -> str:
    """Return a local root without `file://`; other URLs stay as they are."""
    return url.removeprefix("file://")
