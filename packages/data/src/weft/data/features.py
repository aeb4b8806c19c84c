"""A store of frozen-encoder features: 16-bit floats in memory-mapped shards, keyed by what produced them.

On disk: `index.json` (written last), `features-00000.npy` and so on, `ids.json`, `checksums.npy` (CRC-32 per
item) and, where items differ in length, `offsets.npy`. A folder without an index is no store.
"""

import hashlib
import json
import os
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.atomic import whole_folder, write_text
from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MalformedRecordError,
    MissingFileError,
    StateMismatchError,
    unknown_name,
)

VERSION = 1
Features = NDArray[np.float16]


@dataclass(frozen=True)
class FeatureKey:
    """What features depend on; two stores with equal keys are interchangeable.

    Args:
        encoder: Model id.
        weights: Fingerprint of its weights.
        transform: Fingerprint of the image transform.
        data: Fingerprint of the records.
    """

    encoder: str
    weights: str
    transform: str
    data: str

    def digest(self) -> str:
        """Return a short hash, fit for a folder name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


def write_features(
    path: str | os.PathLike[str],
    items: Iterable[tuple[str, NDArray[Any]]],
    key: FeatureKey,
    *,
    ragged: bool = False,
    shard_items: int = 4096,
) -> "FeatureStore":
    """Write features as 16-bit floats, the whole store at once or not at all; memory holds one shard.

    Args:
        path: Folder of the store; must not exist or be empty.
        items: Pairs of id and array. All arrays have one shape, or, if `ragged`, differ in the first axis.
        key: What the features depend on.
        ragged: Whether items have different lengths, such as frames of videos.
        shard_items: Items per shard.

    Raises:
        MalformedRecordError: If an id repeats, a shape differs, or a value is not finite in 16 bits.
        InvalidArgumentError: If there is no item, or the folder holds something.
    """
    with whole_folder(path) as folder:
        writer = _Writer(folder, ragged)
        shard: list[Features] = []
        for identity, array in items:
            shard.append(writer.accept(identity, array))
            if len(shard) == shard_items:
                writer.flush(shard)
                shard = []
        if shard:
            writer.flush(shard)
        writer.finish(key)
    return FeatureStore(path)


class FeatureStore:
    """Reads features by position or id; nothing is loaded before it is asked for.

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
        try:
            index = json.loads((self.path / "index.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingFileError(
                f"`path` must be a feature store, but {self.path} has no index.json. Extract the features "
                "first."
            ) from None
        if index.get("version") != VERSION:
            raise StateMismatchError(
                f"`path` must be a feature store of version {VERSION}, but {self.path} has "
                f"{index.get('version')}. "
                "Extract the features again."
            )
        self.key = FeatureKey(**index["key"])
        self.ragged: bool = index["ragged"]
        self.item_shape: tuple[int | None, ...] = tuple(index["item_shape"])
        self._starts: list[int] = index["starts"]
        self._count: int = index["count"]
        if key is not None and key != self.key:
            differing = [name for name, value in asdict(key).items() if asdict(self.key)[name] != value]
            raise StateMismatchError(
                f"`key` must equal that of {self.path}, but differs in {', '.join(differing)}. Extract the "
                "features "
                "again, or open the store that belongs to these weights, transform and data."
            )
        self._check_sizes(index["bytes"])
        for item in sorted(random.Random(0).sample(range(self._count), min(sample, self._count))):
            self._check_item(item)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, item: int) -> Features:
        """Return the features of one item as a read-only view into the file.

        Raises:
            IndexError: If there is no such item.
        """
        if not 0 <= item < self._count:
            raise IndexError(f"item must lie in 0..{self._count - 1}, but is {item}")
        shard = int(np.searchsorted(self._starts, item, side="right")) - 1
        first = self._starts[shard]
        if not self.ragged:
            return self._shards[shard][item - first]
        base = self._offsets[first]
        return self._shards[shard][self._offsets[item] - base : self._offsets[item + 1] - base]

    def __iter__(self) -> Iterator[tuple[str, Features]]:
        return ((identity, self[item]) for item, identity in enumerate(self.ids))

    def __getstate__(self) -> dict[str, Any]:
        cached = ("ids", "_positions", "_shards", "_offsets", "_checksums")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def get(self, identity: str) -> Features:
        """Return the features of the item with an id.

        Raises:
            UnknownNameError: With near matches, if no item has it.
        """
        if identity not in self._positions:
            raise unknown_name(f"id in {self.path}", identity, self.ids[:1000])
        return self[self._positions[identity]]

    def find(self, identity: str) -> int | None:
        """Return the position of the item with an id, or None."""
        return self._positions.get(identity)

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
        for item in sorted(random.Random(1).sample(range(self._count), min(sample, self._count))):
            stored, fresh = self[item].astype(np.float32), np.asarray(compute(self.ids[item]), np.float32)
            limit = tolerance * max(1e-6, float(np.abs(fresh).max()))
            if stored.shape != fresh.shape or float(np.abs(stored - fresh).max()) > limit:
                raise StateMismatchError(
                    f"Stored features of {self.ids[item]!r} in {self.path} must equal a fresh computation "
                    "within "
                    f"{tolerance:g}, but differ. Extract the features again."
                )

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the items, in order."""
        values: list[str] = json.loads((self.path / "ids.json").read_text(encoding="utf-8"))
        return values

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {identity: item for item, identity in enumerate(self.ids)}

    @cached_property
    def _shards(self) -> list[Features]:
        names = [_shard_name(number) for number in range(len(self._starts))]
        return [np.load(self.path / name, mmap_mode="r") for name in names]

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        values: NDArray[np.int64] = np.load(self.path / "offsets.npy")
        return values

    @cached_property
    def _checksums(self) -> NDArray[np.uint32]:
        values: NDArray[np.uint32] = np.load(self.path / "checksums.npy")
        return values

    def _check_sizes(self, sizes: dict[str, int]) -> None:
        for name, size in sizes.items():
            file = self.path / name
            actual = file.stat().st_size if file.exists() else 0
            if actual != size:
                raise CorruptMediaError(
                    f"{file} must have {size} bytes, but has {actual}. Extract the features again."
                )

    def _check_item(self, item: int) -> None:
        if zlib.crc32(np.ascontiguousarray(self[item]).tobytes()) != self._checksums[item]:
            raise CorruptMediaError(
                f"Item {item} of {self.path} must match its checksum, but does not. Extract the features "
                "again."
            )


class _Writer:
    """Collects what belongs to all shards."""

    def __init__(self, folder: Path, ragged: bool) -> None:
        self._folder, self._ragged = folder, ragged
        self._ids: dict[str, None] = {}
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._checksums: list[int] = []
        self._shape: tuple[int, ...] | None = None
        self._flushed = 0

    def accept(self, identity: str, array: NDArray[Any]) -> Features:
        if identity in self._ids:
            raise MalformedRecordError(
                f"Ids of features must be unique, but {identity!r} comes twice. Remove one."
            )
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(array, dtype=np.float16)
        shape = half.shape[1:] if self._ragged else half.shape
        if self._shape is None:
            self._shape = shape
        if shape != self._shape or (self._ragged and half.ndim == 0):
            raise MalformedRecordError(
                f"Features must have the shape {self._shape} of the first item, but {identity!r} has "
                f"{shape}. "
                "Pass ragged=True if the first axis may differ."
            )
        if not np.isfinite(half).all():
            raise MalformedRecordError(
                f"Features must be finite as 16-bit floats, but those of {identity!r} are not. "
                "Normalise them, or repair the input."
            )
        self._ids[identity] = None
        self._lengths.append(len(half) if self._ragged else 1)
        self._checksums.append(zlib.crc32(half.tobytes()))
        return half

    def flush(self, shard: list[Features]) -> None:
        self._starts.append(self._flushed)
        data = np.concatenate(shard) if self._ragged else np.stack(shard)
        np.save(self._folder / _shard_name(len(self._starts) - 1), data)
        self._flushed += len(shard)

    def finish(self, key: FeatureKey) -> None:
        if self._shape is None:
            raise InvalidArgumentError("`items` must hold at least one item, but is empty.")
        np.save(self._folder / "checksums.npy", np.array(self._checksums, dtype=np.uint32))
        if self._ragged:
            np.save(
                self._folder / "offsets.npy", np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
            )
        write_text(self._folder / "ids.json", json.dumps(list(self._ids)))
        index = {
            "version": VERSION,
            "key": asdict(key),
            "ragged": self._ragged,
            "item_shape": [None, *self._shape] if self._ragged else list(self._shape),
            "count": len(self._ids),
            "starts": self._starts,
            "bytes": {file.name: file.stat().st_size for file in sorted(self._folder.iterdir())},
        }
        write_text(self._folder / "index.json", json.dumps(index, indent=1))


def _shard_name(number: int) -> str:
    return f"features-{number:05d}.npy"
