"""WebDataset tars: files that share a stem are one sample, such as `000.jpg`, `000.txt` and `000.json`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.errors import MalformedRecordError
from weft.data.media.reference import MediaRef
from weft.data.records.columns import RowMapping, mapping_of
from weft.data.records.record import Record
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.sources.archives import ArchiveStore
from weft.data.sources.folders import FolderStore
from weft.data.sources.store import Store
from weft.data.sources.texts import parse_json

_IMAGES = ("jpg", "jpeg", "png", "webp")
_VIDEOS = ("mp4", "avi", "webm", "mkv")
_TARS = (".tar", ".tar.gz", ".tgz")
_TEXTS = ("txt", "cls", "text")


def read(
    source: Source,
    split: str,
    *,
    record: str = "caption",
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Iterator[Record]:
    """Yield one record per sample of the tars `SPLIT-*.tar` or `SPLIT/*.tar`, sorted by tar and position.

    A sample offers one column per ending (`txt`, `cls`, ...) and the keys of its `json`; media become the
    fields `image`, `media` or `video` by themselves. One tar may be the root.

    Options:
        record: Type of the records, such as "image_qa".
        columns: Record field to column, such as `{"captions": "txt"}`.
        classes: Class names in label order, for classification by names instead of numbers.
    """
    mapping = mapping_of(record, columns or {}, labels=source.numbered(classes or ()))
    for store in _archives(source, split):
        address = store.describe()
        rows = (Row(members, address, key) for key, members in _samples(store).items())
        yield from source.build(rows, partial(_record, mapping, store, address.rsplit("/", 1)[-1]))


def _record(mapping: RowMapping, store: Store, tar: str, row: Row) -> Record:
    return mapping.record(row.sub(_columns(store, row)), f"{tar}:{row.number}")


def find_splits(source: Source, **options: Any) -> list[str]:
    """What comes before the first `-`, `/` or `.` of the tars of a folder, or of the tar that is the root."""
    store = source.store
    names = _tars(store) if isinstance(store, FolderStore) else [store.describe().rpartition("/")[2]]
    return sorted({re.split(r"[-/.]", name, maxsplit=1)[0] for name in names})


def _tars(store: Store) -> list[str]:
    return [name for name in store.names() if name.endswith(_TARS)]


def _archives(source: Source, split: str) -> list[Store]:
    if not isinstance(source.store, FolderStore):
        return [source.store]
    wanted = [
        name for name in _tars(source.store) if name.startswith((f"{split}-", f"{split}/", f"{split}."))
    ]
    if not wanted:
        raise source.missing([f"{split}-00000.tar", f"{split}/00000.tar"], "tars")
    return [ArchiveStore(f"{source.store.url.rstrip('/')}/{name}", source.store.options) for name in wanted]


def _samples(store: Store) -> dict[str, dict[str, str]]:
    """Return key to {ending: member}; an ending begins at the first dot of the file name."""
    samples: dict[str, dict[str, str]] = {}
    for name in store.names():
        folder, _, file_name = name.rpartition("/")
        stem, _, ending = file_name.partition(".")
        samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[ending.lower()] = name
    return samples


def _columns(store: Store, row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for ending, member in row.value.items():
        if ending in _IMAGES:
            reference = MediaRef(member, store)
            values.update(image=reference, media=reference, images=[reference])
        elif ending in _VIDEOS:
            reference = MediaRef(member, store, "video")
            values.update(video=reference, media=reference)
        elif ending in _TEXTS:
            values[ending] = _text(store, member, row).strip()
        elif ending == "json":
            content = _object(_text(store, member, row), member, row)
            values.update({name: value for name, value in content.items() if name not in values})
    return values


def _text(store: Store, member: str, row: Row) -> str:
    try:
        return store.read(member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row.fail(f"{member!r} must be UTF-8 text, but {error}")


def _object(text: str, member: str, row: Row) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except MalformedRecordError as error:
        row.fail(f"{member!r} must be JSON, but {error}")
    if not isinstance(content, dict):
        row.fail(f"{member!r} must be a JSON object, but is {type(content).__name__}")
    return content


SPEC = DatasetSpec(
    name="webdataset",
    record_type="caption",
    splits=(),
    read=read,
    find_splits=find_splits,
    summary="Your own or published WebDataset tars, as any record type.",
    licence="yours",
    how_to_get="Put tars named SPLIT-*.tar, or into a folder SPLIT/, under ROOT, or give one tar as ROOT.",
)
