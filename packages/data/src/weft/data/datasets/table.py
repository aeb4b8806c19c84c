"""Any CSV, TSV, JSONL or Parquet table with image and text columns, as any record type."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.columns import ColumnMapping
from weft.data.errors import CorruptMediaError, InvalidArgumentError, MalformedRecordError
from weft.data.files import FolderStore, Store
from weft.data.limits import check_unpacked
from weft.data.records import Classify, Record
from weft.data.rows import Row
from weft.data.source import MediaFolder, Source, StoredFile

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_CELL = 8


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
    mapping = ColumnMapping(record, columns or {})
    stored, base = _locate(source, split, file)
    rows = list(_rows(source, stored))
    names = list(classes or ())
    if mapping.kind is Classify and classes is None:
        names = sorted({mapping.class_name(row) for row in rows})
    labels = {name: label for label, name in enumerate(names)}
    mapping = ColumnMapping(record, columns or {}, MediaFolder(base, media_root.strip("/")), labels)
    yield from source.build(rows, lambda row: mapping.record(row, f"{split}-{row.number}"))


def _locate(source: Source, split: str, file: str | None) -> tuple[StoredFile, Store]:
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

    data = stored.read()
    try:
        about = parquet.read_metadata(arrow.BufferReader(data))
        packed = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        # Repeated values are written once, and take their place in memory all the same.
        check_unpacked(max(packed, _CELL * about.num_rows * about.num_columns), len(data), stored.name)
        table: list[dict[str, Any]] = parquet.read_table(arrow.BufferReader(data)).to_pylist()
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, CorruptMediaError):
            raise
        raise MalformedRecordError(
            f"{stored.name} must be a Parquet file, but is not: {error}. Get it again."
        ) from error
    return table


SPEC = DatasetSpec(
    name="table",
    task="image_qa",
    splits=(),
    read=read,
    summary="Your own CSV, TSV, JSONL or Parquet with image and text columns, as any record type.",
    licence="yours",
    how_to_get="Put SPLIT.csv, SPLIT.tsv, SPLIT.jsonl or SPLIT.parquet into ROOT, or name it with file=.",
)
