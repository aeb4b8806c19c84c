"""The rows of tables in the forms that people have."""

from collections.abc import Iterator
from typing import Any

from weft.data.errors import CorruptMediaError, InvalidArgumentError, MalformedRecordError
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile
from weft.data.sources.limits import check_unpacked

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_CELL = 8


def rows_of(source: Source, stored: StoredFile) -> Iterator[Row]:
    """Yield the rows of a table, by the ending of its name.

    Raises:
        InvalidArgumentError: If it is of no known form.
        MalformedRecordError: If it is not of the form that its ending says.
    """
    plain = stored.path.removesuffix(".gz").lower()
    if plain.endswith((".csv", ".tsv")):
        return source.csv_rows(stored, header=True, delimiter="\t" if plain.endswith(".tsv") else ",")
    if plain.endswith(".jsonl"):
        return source.json_lines(stored)
    if plain.endswith(".json"):
        return source.rows(stored, _listed(stored))
    if plain.endswith(".parquet"):
        return source.rows(stored, _parquet(stored))
    raise InvalidArgumentError(f"`file` must end in one of {', '.join(ENDINGS)}, but is {stored.path!r}.")


def _listed(stored: StoredFile) -> list[Any]:
    rows = stored.json()
    if not isinstance(rows, list):
        raise MalformedRecordError(
            f"{stored.name} must be a list of objects, one for each row, but is {type(rows).__name__}. Take the list "
            "out of it, or write one object a line and call it .jsonl."
        )
    return rows


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
