"""A store of frozen-encoder features, read: memory-mapped shards, looked up by what was encoded.

On disk: `index.json`, and for each shard `features-….npy` and `items-….json` with ids and CRC-32 checksums. A folder
without an index is no store.
"""

import os
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, StateMismatchError, unknown_name
from weft.data.features.identity import content_of, identity_of
from weft.data.features.index import FeatureKey, read_index, require_key
from weft.data.features.shards import OpenShard, read_items
from weft.data.media.reference import MediaRef
from weft.data.records.record import Record

Features = NDArray[np.floating[Any]]

_OPEN_SHARDS = 256  # each holds a file open


class FeatureStore:
    """Reads features by position, id or medium; nothing is loaded before it is asked for.

    A store can grow; this object shows it as it was when it was opened.

    Args:
        path: Folder of the store.
        key: If given, the key the store must have.
        sample: Items whose checksum is verified on opening, spread over the store.

    Raises:
        MissingFileError: If the folder is no store.
        StateMismatchError: If the key differs, naming the parts that do.
        CorruptMediaError: If a file is cut short or a checksum is wrong.
    """

    def __init__(
        self, path: str | os.PathLike[str], key: FeatureKey | None = None, *, sample: int = 8
    ) -> None:
        self.path = Path(path)
        self._index = read_index(self.path)
        if key is not None:
            require_key(self.path, self._index.key, key)
        self._open: OrderedDict[str, OpenShard] = OrderedDict()
        self._check_sizes()
        for item in sorted(random.Random(0).sample(range(len(self)), min(sample, len(self)))):
            shard, row = self._at(item)
            if not shard.is_whole(row):
                raise CorruptMediaError(
                    f"Item {item} of {self.path} must match its checksum, but does not. Extract the features again."
                )

    @property
    def key(self) -> FeatureKey:
        """What the features depend on."""
        return self._index.key

    @property
    def ragged(self) -> bool:
        """Whether items differ in the first axis."""
        return self._index.ragged

    @property
    def item_shape(self) -> tuple[int | None, ...]:
        """Shape of an item; None for an axis that differs."""
        return self._index.item_shape or ()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, item: int) -> Features:
        """Return the features of one item as a read-only view into the file.

        Raises:
            IndexError: If there is no such item.
        """
        shard, row = self._at(item)
        return shard.row(row)

    def __iter__(self) -> Iterator[tuple[str, Features]]:
        return ((identity, self[item]) for item, identity in enumerate(self.ids))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_index": self._index, "_open": OrderedDict()}

    def get(self, identity: str) -> Features:
        """Return the features of the item with an id.

        Raises:
            UnknownNameError: With near matches, if no item has it.
        """
        if identity not in self._positions:
            raise unknown_name(f"id in {self.path}", identity, self.ids[:1000])
        return self[self._positions[identity]]

    def find(self, medium: MediaRef | Record, tag: str = "") -> int | None:
        """Return the position of the features of a medium, or None.

        A store that weft extracted is asked for the medium's identity and, where a file was moved, copied or touched,
        for its content. A store of features that others extracted is asked for the file's path in the data set, and
        for its name without ending.

        Args:
            medium: An image or video, or a record for all of its media.
            tag: What else the features depend on, as given to `extract_features`.

        Raises:
            MissingFileError: If the store goes by identities and the file is not there.
        """
        if self.by_name:
            (ref,) = (medium,) if isinstance(medium, MediaRef) else medium.media_refs()
            found = self.named(ref.path)
            return self.named(PurePosixPath(ref.path).stem) if found is None else found
        found = self._positions.get(identity_of(medium, tag))
        if found is None and self._contents:
            found = self._contents.get(content_of(medium, tag))
        return found

    def named(self, identity: str) -> int | None:
        """Return the position of the item with an id, or None."""
        return self._positions.get(identity)

    @property
    def by_name(self) -> bool:
        """Whether items go by names that others gave them, not by identities."""
        return self._index.by == "name"

    def checksum(self, item: int) -> int:
        """Return the checksum that was noted of an item when it was written; the features stay closed."""
        return self._checksums[item]

    def verify(
        self, compute: Callable[[str], NDArray[Any]], *, sample: int = 8, tolerance: float = 2e-3
    ) -> None:
        """Compute a sample again and compare.

        Args:
            compute: Returns the features of an id.
            sample: Number of items.
            tolerance: Greatest allowed difference, relative to the largest value of the item.

        Raises:
            StateMismatchError: Naming the first item that differs.
        """
        for item in sorted(random.Random(1).sample(range(len(self)), min(sample, len(self)))):
            stored, fresh = self[item].astype(np.float32), np.asarray(compute(self.ids[item]), np.float32)
            limit = tolerance * max(1e-6, float(np.abs(fresh).max()))
            if stored.shape != fresh.shape or float(np.abs(stored - fresh).max()) > limit:
                raise StateMismatchError(
                    f"Stored features of {self.ids[item]!r} in {self.path} must equal a fresh computation within "
                    f"{tolerance:g}, but differ. Extract the features again."
                )

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the items, in order."""
        return self._noted("ids")

    @cached_property
    def _checksums(self) -> list[int]:
        return self._noted("checksums")

    def _noted(self, what: str) -> list[Any]:
        return [value for shard in self._index.shards for value in read_items(self.path, shard.name)[what]]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {identity: item for item, identity in enumerate(self.ids)}

    @cached_property
    def _contents(self) -> dict[str, int]:
        """Digest of what was encoded to the position of its features."""
        found: dict[str, int] = {}
        for shard, start in zip(self._index.shards, self._starts[:-1].tolist(), strict=True):
            contents = read_items(self.path, shard.name)["contents"]
            found |= {content: start + row for row, content in enumerate(contents)}
        return found

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(shard.count for shard in self._index.shards)], dtype=np.int64)

    def _at(self, item: int) -> tuple[OpenShard, int]:
        if not 0 <= item < len(self):
            raise IndexError(f"item must lie in 0..{len(self) - 1}, but is {item}")
        number = int(np.searchsorted(self._starts, item, side="right")) - 1
        name = self._index.shards[number].name
        shard = self._open.get(name)
        if shard is None:
            own = self.item_shape[self.ragged :] if self.item_shape else None
            count = self._index.shards[number].count
            shard = self._open[name] = OpenShard(self.path, name, self.ragged, count=count, shape=own)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return shard, item - int(self._starts[number])

    def _check_sizes(self) -> None:
        for shard in self._index.shards:
            for name, size in shard.bytes.items():
                file = self.path / name
                actual = file.stat().st_size if file.exists() else 0
                if actual != size:
                    raise CorruptMediaError(
                        f"{file} must have {size} bytes, but has {actual}. Extract the features again."
                    )
