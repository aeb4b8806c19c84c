"""Any CSV, TSV, JSON, JSONL or Parquet table with image and text columns, as any record type."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.datasets._tables import ENDINGS, rows_of
from weft.data.errors import InvalidArgumentError
from weft.data.records.classify import Classify
from weft.data.records.columns import ColumnMapping, mapping_of
from weft.data.records.record import Record
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source, StoredFile
from weft.data.sources.folders import FolderStore

TRAIN = "train"


def read(
    source: Source,
    split: str,
    *,
    record: str = "image_qa",
    columns: Mapping[str, str | Sequence[str]] | None = None,
    file: str | None = None,
    media_root: str = "",
    classes: Sequence[str] | str | None = None,
) -> Iterator[Record]:
    """Yield one record per row; columns that no field takes go to `extra`.

    The table is the root itself, or `SPLIT.csv` (or .tsv, .jsonl, .json, .parquet) in it.

    Options:
        record: Type of the records, such as "image_qa".
        columns: Record field to column name (for `images` one column of lists, or a list of columns). Fields that are
            not named use the column of their own name; `id` falls back to the row number.
        file: Path of the table below the root.
        media_root: Folder below the root that image paths start from.
        classes: Class names in label order, for classification tables without a label column, or the path of a
            table below the root that has them all. By default the names, sorted, in the table of the split `train`
            (`train.csv` or another ending); the splits "train" and "all" have their own where there is none. A row
            whose class is none of them is malformed.

    Raises:
        InvalidArgumentError: If nothing tells the classes of the data set.
    """
    mapping = mapping_of(record, columns or {})
    stored = _located(source, split, file)
    rows = list(rows_of(source, stored))
    labels: dict[str, int] = {}
    if (
        isinstance(mapping, ColumnMapping)
        and mapping.kind is Classify
        and not all(map(mapping.has_label, rows))
    ):
        labels = _labels(source, mapping, stored, rows, split, classes)
        source.classes = sorted(labels, key=lambda name: labels[name])
    media = MediaFolder(stored.store, media_root.strip("/"))
    mapping = mapping_of(record, columns or {}, media, labels)
    yield from source.build(rows, lambda row: mapping.record(row, f"{split}-{row.number}"))


def _labels(
    source: Source,
    mapping: ColumnMapping,
    stored: StoredFile,
    rows: Sequence[Row],
    split: str,
    classes: Sequence[str] | str | None,
) -> dict[str, int]:
    """Class name to label for the whole data set, whatever the split."""
    if classes is not None and not isinstance(classes, str):
        names = [unicodedata.normalize("NFC", name) for name in classes]
        if len(set(names)) != len(names):
            raise InvalidArgumentError(f"`classes` must not repeat a class, but is {list(classes)}.")
        return {name: label for label, name in enumerate(names)}
    told, base = stored, stored.store
    if classes is not None:
        told = StoredFile(base, classes)
        if not base.exists(classes):
            raise source.missing([classes], "table of classes")
    elif split not in (TRAIN, "all"):
        folder, _, name = stored.path.rpartition("/")
        beside = filter(base.exists, _tables(f"{folder}/{TRAIN}".lstrip("/")))
        told = next((StoredFile(base, path) for path in beside), stored)
        if told is stored and name not in _tables(TRAIN):
            raise InvalidArgumentError(
                f"`classes` must be given for split {split!r}, because {stored.name} names its classes and lies beside "
                f"no table of the split {TRAIN!r}, by which they are numbered. List them, or give the path of a table "
                "that has them all."
            )
    everyone = rows if told is stored else list(rows_of(source, told))
    numbered = {mapping.class_name(row): row for row in everyone if mapping.class_name(row)}
    if all(mapping.has_label(row) for row in numbered.values()):
        return {name: mapping.label(row) for name, row in numbered.items()}
    return {name: label for label, name in enumerate(sorted(numbered))}


def _tables(stem: str) -> list[str]:
    return [f"{stem}{ending}{packed}" for ending in ENDINGS for packed in ("", ".gz")]


def _located(source: Source, split: str, file: str | None) -> StoredFile:
    store = source.store
    if isinstance(store, FolderStore) and store.url.lower().endswith(ENDINGS) and file is None:
        folder, _, name = store.url.rpartition("/")
        base = FolderStore(folder or ".", store.options, store.follow_links)
        if not base.exists(name):
            raise source.missing([""])
        return StoredFile(base, name)
    return source.find(*([file] if file else (f"{split}{ending}" for ending in ENDINGS)))


def find_splits(source: Source, *, file: str | None = None, **options: Any) -> list[str]:
    """Names of the tables at the root, without their endings, or that of the one that is the root, or named."""
    store = source.store
    if file is not None or (isinstance(store, FolderStore) and store.url.lower().endswith(ENDINGS)):
        return [(file or store.describe()).rpartition("/")[2].partition(".")[0]]
    plain = [name.removesuffix(".gz") for name in store.names() if "/" not in name]
    return sorted({name.rpartition(".")[0] for name in plain if name.lower().endswith(ENDINGS)})


SPEC = DatasetSpec(
    name="table",
    record_type="image_qa",
    splits=(),
    read=read,
    find_splits=find_splits,
    summary="Your own CSV, TSV, JSON, JSONL or Parquet with image and text columns, as any record type.",
    licence="yours",
    how_to_get="Put SPLIT.csv, SPLIT.tsv, SPLIT.json, SPLIT.jsonl or SPLIT.parquet into ROOT, or name it with file=.",
)
