"""Any CSV, TSV, JSONL or Parquet table with image and text columns, as any record type."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError, MalformedRecordError, unknown_name
from weft.data.files import FolderStore
from weft.data.records import RECORD_TYPES, Classify, MediaRef, Record
from weft.data.rows import Row
from weft.data.source import MediaFolder, Source, StoredFile

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_MEDIA = ("image", "media", "video", "images")
_TEXTS = ("answers", "captions", "options")


def read(
    source: Source,
    split: str,
    *,
    record: str = "image_qa",
    columns: Mapping[str, str | Sequence[str]] | None = None,
    file: str | None = None,
    media_root: str = "",
    classes: Sequence[str] | None = None,
) -> Iterator[Record]:
    """Yield one record per row; columns that no field takes go to `extra`.

    Args:
        source: The folder of the table, or the table itself.
        split: Name of the split; the table is `SPLIT.csv` (or .tsv, .jsonl, .parquet) unless `file` is given.
        record: Task of the records, a key of `RECORD_TYPES`.
        columns: Record field to column name (for `images` a list of columns). Fields that are not named use
            the column of their own name; `id` falls back to the row number.
        file: Path of the table below the root.
        media_root: Folder below the root that image paths start from.
        classes: Class names in label order, for classification tables without a label column. By default
            the names in the table, sorted.
    """
    if record not in RECORD_TYPES:
        raise unknown_name("record type", record, RECORD_TYPES)
    kind = RECORD_TYPES[record]
    mapping = _mapping(kind, columns or {})
    stored, base = _locate(source, split, file)
    rows = list(_rows(source, stored))
    media = MediaFolder(base, media_root.strip("/"))
    names = [_class_name(row, mapping) for row in rows] if kind is Classify else []
    labels = {
        name: label for label, name in enumerate(classes if classes is not None else sorted(set(names)))
    }

    def make(row: Row) -> Record:
        present = row.value
        if not isinstance(present, Mapping):
            row.fail(f"must be an object with named columns, but is {type(present).__name__}")
        values: dict[str, Any] = {}
        for field in fields(kind):
            column = mapping[field.name]
            if field.name in _MEDIA:
                values[field.name] = _media(row, field.name, column, media)
            elif isinstance(column, str) and row.has(column) and field.name != "extra":
                values[field.name] = _value(row, kind, field.name, column)
        values.setdefault("id", f"{split}-{row.number}")
        if kind is Classify and "label" not in values:
            name = values.get("class_name", "")
            if name not in labels:
                row.fail(f"`{mapping['class_name']}` must be one of {', '.join(labels)}, but is {name!r}")
            values["label"] = labels[name]
        for identity in ("image_id", "media_id", "text_id", "group_id"):
            if identity in mapping and identity not in values:
                values[identity] = _identity(values, identity)
        for field in fields(kind):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                row.fail(f"must have the column `{mapping[field.name]}` for the field `{field.name}`")
        used = {
            name for column in mapping.values() for name in ([column] if isinstance(column, str) else column)
        }
        values["extra"] = {name: value for name, value in present.items() if name not in used}
        return kind(**values)

    yield from source.build(rows, make)


def _mapping(kind: type[Record], columns: Mapping[str, str | Sequence[str]]) -> dict[str, str | list[str]]:
    names = [field.name for field in fields(kind)]
    for name in columns:
        if name not in names:
            raise unknown_name(f"field of {kind.task} in `columns`", name, names)
    return {
        name: column if isinstance(column := columns.get(name, name), str) else list(column) for name in names
    }


def _locate(source: Source, split: str, file: str | None) -> tuple[StoredFile, FolderStore | Any]:
    store = source.store
    if isinstance(store, FolderStore) and store.url.lower().endswith(ENDINGS) and file is None:
        folder, _, name = store.url.rpartition("/")
        base = FolderStore(folder or ".", store.options, store.follow_links)
        if not base.exists(name):
            raise source.missing([""])
        return StoredFile(base, name), base
    candidates = [file] if file else [f"{split}{ending}" for ending in ENDINGS]
    return source.find(*candidates), store


def _rows(source: Source, stored: StoredFile) -> Iterator[Row]:
    plain = stored.path.removesuffix(".gz").lower()
    if plain.endswith((".csv", ".tsv")):
        return source.csv_rows(stored, header=True, delimiter="\t" if plain.endswith(".tsv") else ",")
    if plain.endswith(".jsonl"):
        return source.json_lines(stored)
    if plain.endswith(".parquet"):
        return source.rows(stored, _parquet(stored))
    raise InvalidArgumentError(f"`file` must end in one of {', '.join(ENDINGS)}, but is {stored.path!r}.")


def _parquet(stored: StoredFile) -> list[dict[str, Any]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        table: list[dict[str, Any]] = parquet.read_table(arrow.BufferReader(stored.read())).to_pylist()
    except arrow.ArrowInvalid as error:
        raise MalformedRecordError(
            f"{stored.name} must be a Parquet file, but is not: {error}. Get it again."
        ) from error
    return table


def _media(row: Row, name: str, column: str | Sequence[str], media: MediaFolder) -> Any:
    columns = [column] if isinstance(column, str) else column
    if name == "images":
        values = row.field(columns[0]) if len(columns) == 1 else [row.field(c) for c in columns]
        many = values if isinstance(values, list) else [values]
        return tuple(_one_media(row, columns[0], value, media, "image") for value in many)
    return _one_media(row, columns[0], row.field(columns[0]), media, "video" if name == "video" else "image")


def _one_media(row: Row, column: str, value: Any, media: MediaFolder, kind: Any) -> MediaRef:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return MediaRef.from_bytes(value, f"row-{row.number}", kind)
    if not isinstance(value, str) or not value:
        row.fail(f"`{column}` must be a path, bytes, or both in an object, but is {value!r}")
    return media.ref(value, kind)


def _value(row: Row, kind: type[Record], name: str, column: str) -> Any:
    if name in _TEXTS:
        return row.texts(column)
    read_by: dict[str, Callable[[str], Any]] = {"soft_targets": row.mapping}
    if name == "label":
        read_by["label"] = row.boolean if RECORD_TYPES["pair_bool"] is kind else row.integer
    elif name == "answer":
        read_by["answer"] = row.integer
    elif name == "id" or name.endswith("_id"):
        read_by[name] = row.identity
    return read_by.get(name, row.text)(column)


def _identity(values: Mapping[str, Any], name: str) -> str:
    """Fall back to the media path for identities of media, and to the record id for the others."""
    for key in ("image", "media", "video"):
        if name in ("image_id", "media_id") and key in values:
            return str(values[key].path)
    return str(values["id"])


def _class_name(row: Row, mapping: Mapping[str, str | list[str]]) -> str:
    column = mapping["class_name"]
    return row.text(column) if isinstance(column, str) and row.has(column) else ""


def write_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV text with a header, in the form `read` takes."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


SPEC = DatasetSpec(
    name="table",
    task="image_qa",
    splits=(),
    read=read,
    summary="Your own CSV, TSV, JSONL or Parquet with image and text columns, as any record type.",
    licence="yours",
    how_to_get="Put SPLIT.csv, SPLIT.tsv, SPLIT.jsonl or SPLIT.parquet into ROOT, or name it with file=.",
)
