"""Pictures and videos that lie in shards, opened one at a time: records are listed without them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from weft.data.errors import MissingFileError
from weft.data.media.reference import MediaRef
from weft.data.records.record import Record
from weft.data.shards.parquet import ShardedRecords, decode_record
from weft.data.sources.store import Store


@dataclass(frozen=True)
class ShardMedia(Store):
    """Media of a sharded data set, as files `SHARD/GROUP/ROW/NUMBER/NAME`.

    Args:
        records: The data set.
    """

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
        file = self.records.store.describe(self.records.at(self.records.shards[shard].file))
        return f"{file}:{group * self.records.group_rows + row}"

    def place(self, path: str) -> str:
        """Return the checksum of the shard and the place in it: what a replaced shard has others of."""
        shard, group, row, number = self._place(path)
        return f"shard:{self.records.shards[shard].sha256}:{group}:{row}:{number}"

    def sketch(self, path: str) -> str:
        """Return the checksum of the shard and the place in it, without reading either."""
        return self.place(path)

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


def listed(records: ShardedRecords) -> Iterator[Record]:
    """Yield every record; embedded media stay in their shards until they are asked for."""
    media = ShardMedia(records)
    for shard, group, _ in records.groups():
        for row, (text, cells) in enumerate(records.rows(shard, group)):
            made = []
            for number, cell in enumerate(cells):
                path, store = cell["path"], records.store
                if records.embeds:
                    path, store = f"{shard}/{group}/{row}/{number}/{path}", media
                made.append(MediaRef(path, store, cell["kind"], cell["start"], cell["end"]))
            yield decode_record(records.record_type, text, made)
