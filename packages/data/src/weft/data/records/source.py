"""What a loader reads from: files found under a root, rows with positions, folders or archives of media.

A loader never opens paths itself. It asks its `Source`, which remembers every path it tried, so that a
missing file is reported with all of them and with the way to get the data.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from weft.data.errors import MalformedRecordError, MissingFileError, UnsafePathError
from weft.data.media.reference import Kind, MediaRef
from weft.data.records.record import R, Record
from weft.data.records.rows import Row
from weft.data.sources.archives import ArchiveStore
from weft.data.sources.folders import FolderStore
from weft.data.sources.store import Store, safe_member
from weft.data.sources.texts import gunzip, is_writable, lines_of, parse_csv, parse_json

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class StoredFile:
    """One file that was found; `.gz` is unpacked on reading."""

    store: Store
    path: str

    @property
    def name(self) -> str:
        """Address for messages, without credentials."""
        return self.store.describe(self.path)

    def read(self) -> bytes:
        """Return the content, unpacked if the name ends in `.gz`."""
        data = self.store.read(self.path)
        return gunzip(data, self.name) if self.path.endswith(".gz") else data

    def text(self) -> str:
        """Return the content as UTF-8 text, without a byte-order mark."""
        try:
            return self.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MalformedRecordError(
                f"{self.name} must be UTF-8 text, but {error}. Get the file again or re-encode it."
            ) from error

    def lines(self) -> list[str]:
        r"""Return the lines of the text; only `\n` ends one."""
        return lines_of(self.text())

    def json(self) -> Any:
        """Return the parsed JSON content."""
        try:
            return parse_json(self.text())
        except MalformedRecordError as error:
            raise MalformedRecordError(
                f"{self.name} must be JSON, but {error}. The file may be cut short; get it again."
            ) from error

    def top(self) -> Row:
        """Return the parsed JSON content as a row, to be asked for its fields."""
        return Row(self.json(), self.name, "top")


@dataclass(frozen=True)
class MediaFolder:
    """A folder of media on disk, in an archive, or under a URL; every name in it has the `ending`."""

    store: Store
    prefix: str = ""
    ending: str = ""

    def ref(self, name: str, kind: Kind = "image", **span: float | None) -> MediaRef:
        """Return a reference to the file `name` of this folder; nothing is opened."""
        path = safe_member(name + self.ending)
        return MediaRef(f"{self.prefix}/{path}" if self.prefix else path, self.store, kind, **span)

    def named_by(self, row: Row, name: str, kind: Kind = "image") -> MediaRef:
        """Return a reference to a file that a row names; nothing is opened.

        Raises:
            UnsafePathError: If the path leaves the folder; file and row are named.
        """
        try:
            return self.ref(name, kind)
        except UnsafePathError as error:
            raise UnsafePathError(f"{row.file}, row {row.number}: {error}") from None

    def names(self) -> list[str]:
        """Return the paths of all files below this folder, relative to it, sorted."""
        skip = len(self.prefix) + 1 if self.prefix else 0
        return [name[skip:] for name in self.store.names(self.prefix)]


def media_reference(
    row: Row, column: str, value: Any, media: MediaFolder | None, kind: Kind = "image", which: str = ""
) -> MediaRef:
    """The image or video that a cell holds as a path, encoded bytes, both in an object, or a reference.

    Paths start from the folder of media. `which` is what tells the medium from others of the row.

    Raises:
        MalformedRecordError: If it is none of these.
        UnsafePathError: If the path leaves the folder.
    """
    if isinstance(value, MediaRef):
        return value
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return MediaRef.from_bytes(value, f"row-{row.number}{which}", kind, label=row.file)
    if not isinstance(value, str) or not value or media is None:
        row.fail(f"`{column}` must be a path, bytes, or both in an object, but is {value!r}")
    return media.named_by(row, row.writing(column, value), kind)


def columns_without(row: Row, used: Collection[str]) -> dict[str, Any]:
    """The columns of a row but for those that are used and those that hold media, as `extra` takes them."""
    left = {name: value for name, value in row.columns().items() if name not in used}
    return {name: value for name, value in left.items() if not _holds_media(value)}


def _holds_media(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_media, value.values()))
    return isinstance(value, MediaRef | bytes) or (isinstance(value, list) and any(map(_holds_media, value)))


@dataclass
class Source:
    """The root of one data set, as its loader sees it.

    Args:
        dataset: Name of the data set, for messages.
        store: The root itself.
        bases: Folders below the root where the official layout may begin; "" is the root.
        how_to_get: Sentence for the error about missing files.
        on_error: "raise" stops at the first malformed row, "skip" counts it in `skipped`.
        require_media: Whether absent images or videos stop the loading.
        skipped: One message per malformed row that was left out.
        classes: Class names in the order of their labels, of the data set and not of one split; loaders that number
            classes fill it.
        notes: What a loader found that may not be meant, one sentence each.
    """

    dataset: str
    store: Store
    bases: Sequence[str] = ("",)
    how_to_get: str = ""
    on_error: OnError = "raise"
    require_media: bool = True
    skipped: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _first: dict[str, tuple[str, int | str]] = field(default_factory=dict, repr=False)

    def find(self, *paths: str) -> StoredFile:
        """Return the first of `paths` that exists under any base, plain or with `.gz` added.

        Raises:
            MissingFileError: Naming every path that was tried.
        """
        found = self.find_optional(*paths)
        if found is None:
            raise self.missing(self._candidates(paths))
        return found

    def find_optional(self, *paths: str) -> StoredFile | None:
        """Return the first of `paths` that exists, or None."""
        for candidate in self._candidates(paths):
            if self.store.exists(candidate):
                return StoredFile(self.store, candidate)
            if self.store.exists(candidate + ".gz"):
                return StoredFile(self.store, candidate + ".gz")
        return None

    def find_all(self, folder: str, accept: Callable[[str], bool]) -> list[StoredFile]:
        """Return the files of `folder` (under any base) whose file name `accept` takes, sorted by name."""
        for base in self.bases:
            start = _joined(base, folder)
            if start and not self.store.exists(start) and isinstance(self.store, FolderStore):
                continue
            names = [name for name in self.store.names(start) if accept(name.rsplit("/", 1)[-1])]
            if names:
                return [StoredFile(self.store, name) for name in names]
        return []

    def media(
        self,
        folders: Sequence[str],
        *,
        archives: Sequence[str] = (),
        probe: str | None = None,
        what: str = "images",
        endings: Sequence[str] = ("",),
    ) -> MediaFolder:
        """Return where the media are: the first folder, or archive, that holds the file `probe`.

        Args:
            folders: Folders below a base that may hold the files.
            archives: Archives below a base that may hold them; inside, each folder and each of its
                tails is tried (`train/images`, `images`, the top).
            probe: Name of one file that must be there; None takes the first folder that exists.
            what: Word for messages.
            endings: What may follow the probe; the first that is found follows every other name.

        Raises:
            MissingFileError: If none has it and media are required.
        """
        probes = ["" if probe is None else f"{probe}{ending}" for ending in endings]
        for name, ending in zip(probes, endings, strict=True):
            for store, folder in self._places(folders, archives):
                if (probe is None and store is not self.store) or store.exists(_joined(folder, name)):
                    return MediaFolder(store, folder, ending)
        if self.require_media:
            tried = [_joined(folder, probes[0]) for folder in self._candidates(folders)]
            hint = f"{what} (or require_media=False, where text or stored features are enough)"
            raise self.missing([*tried, *self._candidates(archives)], hint)
        return MediaFolder(self.store, self._candidates(folders)[0], endings[0])

    def _places(self, folders: Sequence[str], archives: Sequence[str]) -> Iterator[tuple[Store, str]]:
        """Every folder that may hold media: below the root, and in each archive that is there."""
        yield from ((self.store, folder) for folder in self._candidates(folders))
        for archive in self._candidates(archives):
            if isinstance(self.store, FolderStore) and self.store.exists(archive):
                inner = ArchiveStore(f"{self.store.url.rstrip('/')}/{archive}", self.store.options)
                yield from ((inner, tail) for tail in _tails(folders))

    def rows(self, file: StoredFile, values: Iterable[Any]) -> Iterator[Row]:
        """Wrap parsed values with their position in `file`, counted from 1.

        Raises:
            MalformedRecordError: If they are one object, text or number, and not a list.
        """
        name = file.name
        if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
            raise MalformedRecordError(
                f"{name} must be a list, one entry for each row, but is {type(values).__name__}. Get the file again."
            )
        for number, value in enumerate(values, 1):
            yield Row(value, name, number)

    def json_rows(self, file: StoredFile, key: str | None = None) -> Iterator[Row]:
        """Return the rows of a JSON file: the list that it is, or the one under `key` of the object that it is."""
        return self.rows(file, file.json() if key is None else file.top().items(key))

    def json_lines(self, file: StoredFile) -> Iterator[Row]:
        """Yield one row per non-empty line; a line that is no JSON object is a malformed row."""
        name = file.name
        for number, line in enumerate(file.lines(), 1):
            if line.strip():
                yield Row(line, name, number, encoded=True)

    def csv_rows(self, file: StoredFile, *, header: bool, delimiter: str = ",") -> Iterator[Row]:
        """Yield one row per line of CSV that is not empty: a mapping if there is a header, else a list.

        Cells beyond those of the header are under the key None; absent ones are None.
        """
        name = file.name
        try:
            values = parse_csv(file.text(), delimiter)
        except MalformedRecordError as error:
            raise MalformedRecordError(
                f"{name} must be CSV, but is not: {error}. Get the file again."
            ) from error
        head = values.pop(0) if header and values else None
        for number, value in enumerate(values, 2 if header else 1):
            if value:
                yield Row(value if head is None else _named(head, value), name, number)

    def build(self, rows: Iterable[Row], make: Callable[[Row], R | Iterable[R] | None]) -> Iterator[R]:
        """Turn rows into records; malformed rows raise, or are counted where the caller chose to skip them.

        A row whose record has an id that came before is malformed too. `make` returns the record or records of a row,
        or None to leave it out.
        """
        for row in rows:
            try:
                made = make(row)
                records = [made] if isinstance(made, Record) else list(made or ())
                for record in records:
                    self._claim(record.id, row)
                    if not is_writable(record.extra):
                        row.fail("must hold text that UTF-8 can write, but holds half of a surrogate pair")
            except MalformedRecordError as error:
                if self.on_error == "raise":
                    raise
                self.skipped.append(str(error))
                continue
            yield from records

    def _claim(self, identity: str, row: Row) -> None:
        place = (row.file, row.number)
        first = self._first.setdefault(identity, place)
        if first != place:
            where = f"row {first[1]}" if first[0] == row.file else f"row {first[1]} of {first[0]}"
            row.fail(f"must have its own id, but {identity!r} is in {where} already")

    def by_id(self, rows: Iterable[Row], key: str) -> dict[str, Row]:
        """Return rows, to be joined with others, by the id in `key`; one that comes twice is a malformed row."""
        found: dict[str, Row] = {}
        for row in rows:
            try:
                identity = row.identity(key)
                first = found.setdefault(identity, row)
                if first is not row:
                    row.fail(f"must have its own `{key}`, but {identity!r} is in row {first.number} already")
            except MalformedRecordError as error:
                if self.on_error == "raise":
                    raise
                self.skipped.append(str(error))
        return found

    def numbered(self, classes: Iterable[str]) -> dict[str, int]:
        """Return class name to label of names in label order, accents composed (Unicode NFC); kept as `classes`."""
        self.classes = [unicodedata.normalize("NFC", name) for name in classes]
        return {name: label for label, name in enumerate(self.classes)}

    def missing(self, tried: Iterable[str], what: str = "files") -> MissingFileError:
        """Build the error for files that are nowhere, naming every path that was tried."""
        paths = "\n  ".join(dict.fromkeys(self.store.describe(path) for path in tried))
        advice = f"\nHow to get them: {self.how_to_get}" if self.how_to_get else ""
        return MissingFileError(
            f"`root` must hold the {what} of data set {self.dataset!r}, but none of these exists:\n  {paths}{advice}"
        )

    def _candidates(self, paths: Sequence[str]) -> list[str]:
        return [_joined(base, path) for path in paths for base in self.bases]


class MediaFiles:
    """Media by their names; the folder or archive that holds them is looked for when the first is asked for.

    Arguments are those of `Source.media`.
    """

    def __init__(
        self,
        source: Source,
        folders: Sequence[str],
        archives: Sequence[str] = (),
        *,
        kind: Kind = "image",
        what: str = "images",
        endings: Sequence[str] = ("",),
    ) -> None:
        self._source, self._folders, self._archives = source, folders, archives
        self._kind, self._what, self._endings = kind, what, endings
        self._found: MediaFolder | None = None

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        """Return a reference to the file `name`, of a video from `start` to `end` seconds."""
        if self._found is None:
            self._found = self._source.media(
                self._folders, archives=self._archives, probe=name, what=self._what, endings=self._endings
            )
        return self._found.ref(name, self._kind, start=start, end=end)


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder and path else folder or path


def _named(head: Sequence[str], cells: Sequence[str]) -> dict[str | None, Any]:
    found: dict[str | None, Any] = dict.fromkeys(head)
    found.update(zip(head, cells, strict=False))
    if len(cells) > len(head):
        found[None] = list(cells[len(head) :])
    return found


def _tails(folders: Sequence[str]) -> list[str]:
    """Return each folder and its tails, longest first: a/b/c, b/c, c, and the top."""
    parts = [folder.split("/") for folder in folders]
    return [*dict.fromkeys("/".join(own[start:]) for own in parts for start in range(len(own))), ""]
