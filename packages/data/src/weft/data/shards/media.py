"""Records of shards without their pictures and videos, which are opened one at a time: listed, or as they are drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from weft.data.errors import MissingFileError
from weft.data.records.on_demand import RecordsOnDemand
from weft.data.records.record import Record
from weft.data.shards.parquet import ShardedRecords
from weft.data.sources.store import Store


@dataclass(frozen=True)
class ShardMedia(Store):
    """Media of a sharded data set, as files `SHARD/GROUP/ROW/NUMBER/NAME`."""

    records: ShardedRecords = field(repr=False, hash=False, compare=False)

    def read(self, path: str) -> bytes:
        """Return the content of one file; its row group is read, and the last few stay in each process."""
        shard, group, row, number = self._place(path)
        return self.records.media(shard, group)[row][number].read()

    def exists(self, path: str) -> bool:
        """Tell whether the file exists."""
        try:
            shard, group, row, number = self._place(path)
            return number < len(self.records.media(shard, group)[row])
        except (MissingFileError, IndexError):
            return False

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield nothing: what there is stands in the records."""
        return iter(())

    def describe(self, path: str = "") -> str:
        """Return the address of a file for messages, without credentials."""
        if not path:
            return self.records.store.describe()
        shard, group, row, _ = self._place(path)
        return self.records.address(shard, group)(row)

    def place(self, path: str) -> str:
        """Return the checksum of the shard and the place in it: what a replaced shard has others of."""
        shard, group, row, number = self._place(path)
        return f"shard:{self.records.shards[shard].sha256}:{group}:{row}:{number}"

    sketch = place  # a replaced shard has another checksum

    def _place(self, path: str) -> tuple[int, int, int, int]:
        try:
            shard, group, row, number = (int(word) for word in path.split("/", 4)[:4])
        except ValueError:
            shard = -1
        if not 0 <= shard < len(self.records.shards):
            raise MissingFileError(
                f"`path` must name a medium of {self.records.store.describe()}, but is {path!r}."
            )
        return shard, group, row, number


class DrawnRecords(RecordsOnDemand):
    """Records of a sharded data set that are made when they are asked for, the same as `listed` gives.

    Those of the last few row groups stay in each process, whatever the size of the set; media stay in their shards.
    """

    def __init__(self, records: ShardedRecords) -> None:
        self.shards, self.digest = records, records.index_digest
        self.media_digest = self.digest if records.embeds else None
        self._media = ShardMedia(records)

    def __len__(self) -> int:
        return len(self.shards)

    def record(self, index: int) -> Record:
        """Return a record; the text of one row group is read."""
        shard, group, row = self.shards.locate(index)
        return self.shards.read_group(shard, group, self._media)[row]

    def __iter__(self) -> Iterator[Record]:
        return listed(self.shards)


def listed(records: ShardedRecords) -> Iterator[Record]:
    """Yield every record; embedded media stay in their shards until they are asked for."""
    media = ShardMedia(records)
    for shard, group, _ in records.groups():
        yield from records.decode(shard, group, media)
