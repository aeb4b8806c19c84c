"""Shards that `weft data convert` wrote: `SPLIT/index.json`, or one conversion as the root."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError
from weft.data.records.record import Record
from weft.data.records.source import Source
from weft.data.shards.media import DrawnRecords, listed
from weft.data.shards.parquet import INDEX, ShardedRecords


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield the records of a conversion, in its order; media stay in the shards until they are asked for.

    The root is a folder with a conversion for each split, or one conversion, whose split is what it was made of.

    Raises:
        MissingFileError: There is no index.
        InvalidArgumentError: The one conversion is of another split.
    """
    yield from listed(_opened(source, split))


def draw(source: Source, split: str) -> DrawnRecords:
    """The records of a conversion, made when they are asked for; arguments as for `read`."""
    return DrawnRecords(_opened(source, split))


def _opened(source: Source, split: str) -> ShardedRecords:
    found = source.find(f"{split}/{INDEX}", INDEX)
    folder = found.path.rpartition("/")[0]
    records = ShardedRecords(found.store, folder=folder)
    if folder.rpartition("/")[2] != split and records.split != split:
        raise InvalidArgumentError(
            f"`split` must be that of the conversion in {found.name} ({records.split!r}), but is {split!r}. "
            "Name that one, or put a conversion of each split into a folder of its name."
        )
    return records


def find_splits(source: Source) -> list[str]:
    """The folders that hold an index, or the split of the one conversion."""
    if source.store.exists(INDEX):
        return [ShardedRecords(source.store).split]
    names = source.store.names()
    return sorted(name.removesuffix(f"/{INDEX}") for name in names if name.endswith(f"/{INDEX}"))


SPEC = DatasetSpec(
    name="shards",
    record_type="image_qa",
    splits=(),
    read=read,
    draw=draw,
    find_splits=find_splits,
    summary="Parquet shards with an index, of any type of record.",
    licence="that of the data",
    how_to_get="Write them with `weft data convert`, one folder per split.",
)
