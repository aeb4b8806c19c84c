"""Records in Parquet shards with an index: exact length, random access by row group, checksums, media inside.

On disk: `shard-00000.parquet` and so on, and `index.json`, written last. A folder without an index is no data
set. The bytes of a shard depend on its records alone, so serial and parallel conversion write the same files.
"""

import hashlib
import json
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from weft.data.errors import CorruptMediaError, MissingFileError, StateMismatchError
from weft.data.media.reference import MediaRef
from weft.data.records.on_demand import RecordsOnDemand
from weft.data.records.record import Record, record_class
from weft.data.records.rows import Kept, parse_kept
from weft.data.shards.rows import kept_record
from weft.data.sources.handles import cached
from weft.data.sources.limits import check_unpacked
from weft.data.sources.opening import open_store
from weft.data.sources.store import BytesStore, Store

VERSION = 1
INDEX = "index.json"
_CACHED_GROUPS = 4


@dataclass(frozen=True)
class ShardInfo:
    """One line of the index: a file below the root, its number of records, its size and its checksum."""

    file: str
    rows: int
    bytes: int
    sha256: str


def encode_shard(records: Sequence[Record], *, group_rows: int, embed_media: bool = True) -> bytes:
    """Return a Parquet file of records of one type; the same records give the same bytes.

    To get at one record, its group of `group_rows` is read. Media are stored encoded in the rows, or only their paths.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    texts = [json.dumps(each.without_media(), ensure_ascii=False, sort_keys=True) for each in records]
    text, number = arrow.string(), arrow.float64()
    cell = {"path": text, "bytes": arrow.binary(), "kind": text, "start": number, "end": number}
    media_type = arrow.list_(arrow.struct(list(cell.items())))
    columns = {
        "id": arrow.array([record.id for record in records], text),
        "record": arrow.array(texts, text),
        "media": arrow.array([_media_cells(record, embed_media) for record in records], media_type),
    }
    table = arrow.table(columns)
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink, row_group_size=group_rows, compression="zstd", write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def decode_record(record_type: str, text: str, media: Sequence[MediaRef], place: str) -> Record:
    """Rebuild a record from the column `record` of a row at a place and the references made of its column `media`.

    Raises:
        CorruptMediaError: If they are not those of such a record.
    """
    return kept_record(record_class(record_type), parse_kept(text.encode("utf-8", "replace"), place), media)


class ShardedRecords(RecordsOnDemand):
    """The records of a sharded data set in a folder of a root; the index alone is read on opening.

    `index_digest` is the SHA-256 of the index, which holds the checksum of every shard. `storage_options` are what the
    fsspec filesystem needs; they are never printed.

    Raises:
        MissingFileError: If there is no index.
        StateMismatchError: If the index has another version.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Store,
        storage_options: Mapping[str, Any] | None = None,
        folder: str = "",
    ) -> None:
        self.store = root if isinstance(root, Store) else open_store(root, storage_options)
        self.folder = folder
        try:
            index = parse_kept(self.store.read(self.at(INDEX)), self.store.describe(self.at(INDEX)))
        except MissingFileError:
            raise MissingFileError(
                f"`root` must be a sharded data set, but {self.store.describe(self.at(INDEX))} does not exist. Convert "
                "the data set first."
            ) from None
        version = index.value.get("version")
        if version != VERSION:
            raise StateMismatchError(
                f"`root` must be a sharded data set of version {VERSION}, but {self.store.describe()} has "
                f"{version}. Convert it again."
            )
        self.index_digest = hashlib.sha256(json.dumps(index.value).encode()).hexdigest()
        self._token = f"{self.store.describe(folder)}#{self.index_digest[:16]}"
        self.name, self.split, self.record_type = index.text("name"), index.text("split"), index.text("task")
        record_class(self.record_type, f"record type of {self.store.describe(self.at(INDEX))}")
        self.group_rows = index.count("group_rows", least=1)
        self.shards = tuple(map(_info, index.objects("shards")))
        self._starts = [0, *accumulate(shard.rows for shard in self.shards)]

    def at(self, name: str) -> str:
        """Path in the store of a file of the data set."""
        return f"{self.folder}/{name}" if self.folder else name

    def __len__(self) -> int:
        return self._starts[-1]

    def record(self, index: int) -> Record:
        """Return a record; one row group is read, and the last few stay decoded in each process."""
        shard, group, row = self.locate(index)
        return self.read_group(shard, group)[row]

    def locate(self, index: int) -> tuple[int, int, int]:
        """Return shard, row group and row of a record.

        Raises:
            IndexError: If there is no such record.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"index must lie in 0..{len(self) - 1}, but is {index}")
        shard = bisect_right(self._starts, position) - 1
        group, row = divmod(position - self._starts[shard], self.group_rows)
        return shard, group, row

    def read_group(self, shard: int, group: int, embedded: Store | None = None) -> list[Record]:
        """Return the records of one row group, as `decode` does; the last few groups stay in each process.

        Raises:
            CorruptMediaError: Naming a shard that cannot be read.
        """
        kind = "groups" if embedded is None else "drawn"
        groups: dict[tuple[int, int], list[Record]] = cached(f"{kind}:{self._token}", {}, dict)
        found = groups.get((shard, group))
        if found is None:  # another thread may take out what is there now
            for old in list(groups)[: 1 - _CACHED_GROUPS]:
                groups.pop(old, None)
            found = groups[(shard, group)] = self.decode(shard, group, embedded)
        return found

    def groups(self) -> list[tuple[int, int, int]]:
        """Return (shard, group, rows) of every row group, in order."""
        return [
            (number, group, min(self.group_rows, shard.rows - first))
            for number, shard in enumerate(self.shards)
            for group, first in enumerate(range(0, shard.rows, self.group_rows))
        ]

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            CorruptMediaError: Naming the first shard that differs.
        """
        for shard in self.shards:
            if hashlib.sha256(self.store.read(self.at(shard.file))).hexdigest() != shard.sha256:
                raise CorruptMediaError(
                    f"{self.store.describe(self.at(shard.file))} must match its checksum, but does not. Get it again."
                )

    @cached_property
    def embeds(self) -> bool:
        """Whether the media are in the shards; all rows of a conversion are alike in this."""
        # The first records may be texts alone.
        read = (row for shard, group, _ in self.groups() for row in self._read(shard, group, True))
        first = next((cell for _, cells in read for cell in cells), None)
        return first is not None and first["bytes"] is not None

    def media(self, shard: int, group: int) -> list[list[MediaRef]]:
        """Return the media of every record of a row group; the last few groups stay in each process."""
        return [list(record.media_refs()) for record in self.read_group(shard, group)]

    def address(self, shard: int, group: int) -> Callable[[int], str]:
        """Gives the addresses of the rows of a group for messages, without credentials."""
        file, first = self.store.describe(self.at(self.shards[shard].file)), group * self.group_rows
        return lambda row: f"{file}:{first + row}"

    def decode(self, shard: int, group: int, embedded: Store | None = None) -> list[Record]:
        """Return the records of one row group, read anew; their media are in memory, or opened by `embedded` later.

        Raises:
            CorruptMediaError: Naming a shard that cannot be read.
        """
        found, address = [], self.address(shard, group)
        for row, (text, cells) in enumerate(self._read(shard, group, embedded is None)):
            media = []
            for number, cell in enumerate(cells):
                path, store = cell["path"], self.store
                if embedded is not None and self.embeds:
                    path, store = f"{shard}/{group}/{row}/{number}/{path}", embedded
                elif cell.get("bytes") is not None:
                    store = BytesStore({path: cell["bytes"]})
                media.append(MediaRef(path, store, cell["kind"], cell["start"], cell["end"]))
            found.append(decode_record(self.record_type, text, media, address(row)))
        return found

    def _read(self, shard: int, group: int, with_bytes: bool) -> list[tuple[str, list[dict[str, Any]]]]:
        import pyarrow as arrow

        name = self.at(self.shards[shard].file)
        try:
            opened = self._open(name)
            file = opened.file
            leaves = [file.schema.column(place).path for place in range(len(file.schema))]
            wanted = [leaf for leaf in leaves if leaf != "id" and (with_bytes or not leaf.endswith(".bytes"))]
            with opened.lock:
                table = file.read_row_group(group, columns=wanted)
            if table.num_rows != min(self.group_rows, self.shards[shard].rows - group * self.group_rows):
                raise ValueError("it has another number of rows than the index says")
            texts, media = table.column("record").to_pylist(), table.column("media").to_pylist()
        except CorruptMediaError:
            raise
        except (arrow.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
            raise CorruptMediaError(
                f"{self.store.describe(name)} must be a whole Parquet file, but {error}. Get it again."
            ) from error
        if not all(isinstance(text, str) for text in texts) or not all(
            _are_cells(row, with_bytes) for row in media
        ):
            raise CorruptMediaError(
                f"{self.store.describe(name)} must hold records and their media, but holds something else. Convert "
                "the data set again."
            )
        return list(zip(texts, media, strict=True))

    def _open(self, name: str) -> "_OpenShard":
        opened: _OpenShard = cached(f"parquet:{self._token}/{name}", {}, lambda: _OpenShard(self.store, name))
        return opened


class _OpenShard:
    """A Parquet file that closes the stream it reads from; threads that read it at once would crash the process."""

    def __init__(self, store: Store, name: str) -> None:
        import pyarrow.parquet as parquet

        self._stream, self.lock = store.open(name), threading.Lock()
        try:
            packed = self._stream.seek(0, os.SEEK_END)
            self.file = parquet.ParquetFile(self._stream)
            about = self.file.metadata
            for group in range(about.num_row_groups):
                check_unpacked(about.row_group(group).total_byte_size, packed, store.describe(name))
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        with self.lock:
            self.file.close()
            self._stream.close()


def _media_cells(record: Record, embed: bool) -> list[dict[str, Any]]:
    return [
        {
            "path": reference.path,
            "bytes": reference.read() if embed else None,
            "kind": reference.kind,
            "start": reference.start,
            "end": reference.end,
        }
        for reference in record.media_refs()
    ]


def _info(kept: Kept) -> ShardInfo:
    file = kept.text("file")
    if PurePosixPath(file).name != file:
        kept.fail("`file` must lie beside the index")
    return ShardInfo(file, kept.count("rows"), kept.count("bytes"), kept.text("sha256"))


def _are_cells(cells: Any, with_bytes: bool) -> bool:
    """Whether a row of the column `media` says where its media are."""
    kinds: dict[str, Any] = {"path": str, "kind": str, "start": float | None, "end": float | None}
    if with_bytes:
        kinds["bytes"] = bytes | None
    return isinstance(cells, list) and all(
        isinstance(cell, dict)
        and all(name in cell and isinstance(cell[name], kind) for name, kind in kinds.items())
        for cell in cells
    )
