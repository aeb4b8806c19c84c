"""Images with a table beside them that says what they show, as the `datasets` library reads image folders."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.data.datasets._image_names import is_own_image
from weft.data.datasets._tables import rows_of
from weft.data.records.columns import mapping_of
from weft.data.records.record import Record, media_fields, record_class
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source, StoredFile

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
ONE, SEVERAL = "file_name", "file_names"


def is_metadata(name: str) -> bool:
    """Tell whether a path is that of such a table."""
    return name.rpartition("/")[2] in METADATA


def described(
    source: Source,
    split: str,
    record: str,
    columns: Mapping[str, str | Sequence[str]],
    classes: Sequence[str],
) -> Iterator[Record]:
    """Yield one record per row of the tables of a split, which is a folder, or "all" for every table.

    The images are those that `file_name` or `file_names` names. `classes` are the names in label order, for classes
    without numbers.

    Raises:
        MissingFileError: If there is no table.
        UnknownNameError: For an unknown record type or field.
    """
    fields = media_fields(record_class(record))
    labels = source.numbered(classes)
    names = [name for name in source.store.names() if is_metadata(name)]
    own = [name for name in names if split == "all" or name.startswith(f"{split}/")]
    if not own:
        start = "" if split == "all" else f"{split}/"
        raise source.missing([start + name for name in METADATA], "tables of images")
    told, seen = set[str](), set[str]()
    for name in own:
        folder = name.rpartition("/")[0]
        media = MediaFolder(source.store, folder)

        def make(row: Row, media: MediaFolder = media, name: str = name) -> Record:
            column = SEVERAL if row.has(SEVERAL) else ONE
            paths = _paths(row, column, media, told)
            identity = paths[0] if paths[0] not in seen else f"{name}#{row.number}"
            seen.add(identity)
            found = mapping_of(record, {**dict.fromkeys(fields, column), **columns}, media, labels)
            return found.record(row, identity)

        yield from source.build(rows_of(source, StoredFile(source.store, name)), make)
    _say_untold(source, split, told)


def _paths(row: Row, column: str, media: MediaFolder, told: set[str]) -> list[str]:
    """The paths that a row names, also noted in `told`."""
    paths = [media.named_by(row, name).path for name in row.texts(column)]
    if not paths:
        row.fail(f"`{column}` must name an image, but is empty")
    told.update(paths)
    return paths


def _say_untold(source: Source, split: str, told: set[str]) -> None:
    images = [name for name in source.store.names() if is_own_image(name)]
    left = [name for name in images if split in ("all", name.split("/")[0]) and name not in told]
    if left:
        source.notes.append(f"{len(left):,} images are in no row of `metadata`, such as {left[0]}.")


def described_splits(source: Source, **options: Any) -> list[str]:
    """The folders of the root that hold such a table, or "all" where one is at the root."""
    names = [name.split("/") for name in source.store.names() if is_metadata(name)]
    if any(len(parts) == 1 for parts in names):
        return ["all"]
    return sorted({parts[0] for parts in names})
