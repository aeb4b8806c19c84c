"""One shard of a feature store: an array, and beside it what each of its rows is.

The array is written last. Both names hold a digest of the ids, so that two processes that write one shard, one of them
left over from a run that was killed, write the same files.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import MalformedRecordError
from weft.data.processes.atomic import write_bytes, write_text


@dataclass(frozen=True)
class Shard:
    """A shard as an index names it.

    Args:
        name: Name of its files without prefix and ending, such as `00003-1f0c…`.
        count: Number of items.
        bytes: File to its size.
    """

    name: str
    count: int
    bytes: dict[str, int]

    @property
    def number(self) -> int:
        """Its place among the shards of the store."""
        return int(self.name.partition("-")[0])


class OpenShard:
    """The rows of a shard, memory-mapped.

    Args:
        folder: Folder of the store.
        name: Name of the shard.
        ragged: Whether its items differ in the first axis.
    """

    def __init__(self, folder: Path, name: str, ragged: bool) -> None:
        self._folder, self._name, self._ragged = folder, name, ragged
        self._array = np.load(folder / array_file(name), mmap_mode="r")

    def row(self, item: int) -> NDArray[Any]:
        """Return the features of one item as a view into the file."""
        if not self._ragged:
            row: NDArray[Any] = self._array[item]
            return row
        ragged: NDArray[Any] = self._array[self._offsets[item] : self._offsets[item + 1]]
        return ragged

    def is_whole(self, item: int) -> bool:
        """Tell whether an item matches its checksum."""
        return zlib.crc32(np.ascontiguousarray(self.row(item)).tobytes()) == self._items["checksums"][item]

    @cached_property
    def _items(self) -> dict[str, Any]:
        return read_items(self._folder, self._name)

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self._items["lengths"])]).astype(np.int64)


def shard_name(number: int, ids: Sequence[str]) -> str:
    """Name of the shard at a place that holds these items."""
    return f"{number:05d}-{hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:12]}"


def array_file(name: str) -> str:
    """Name of the file with the rows."""
    return f"features-{name}.npy"


def items_file(name: str) -> str:
    """Name of the file that says what each row is."""
    return f"items-{name}.json"


def read_items(folder: Path, name: str) -> dict[str, Any]:
    """What the rows are: `ids`, `contents` (or empty), `checksums` and, of ragged shards, `lengths`."""
    values: dict[str, Any]
    try:
        values = json.loads((folder / items_file(name)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if "-" in name:
            raise
        values = _items_of_first_version(folder, int(name))
    return values


def _items_of_first_version(folder: Path, number: int) -> dict[str, Any]:
    """The items of a shard where one file names those of all."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    start, end = [*index["starts"], index["count"]][number : number + 2]
    values = {
        "ids": json.loads((folder / "ids.json").read_text(encoding="utf-8"))[start:end],
        "contents": [],
        "checksums": np.load(folder / "checksums.npy")[start:end].tolist(),
    }
    if index["ragged"]:
        values["lengths"] = np.diff(np.load(folder / "offsets.npy")[start : end + 1]).tolist()
    return values


def write_shard(
    folder: Path,
    name: str,
    ids: Sequence[str],
    arrays: Sequence[NDArray[Any]],
    *,
    contents: Sequence[str] = (),
    ragged: bool = False,
) -> None:
    """Write a shard whole.

    Args:
        folder: Folder of the store.
        name: From `shard_name`.
        ids: Of the items.
        arrays: Their features, as `checked` gives them.
        contents: Digests of what was encoded, if they are known.
        ragged: Whether the items differ in the first axis.
    """
    items = {
        "ids": list(ids),
        "contents": list(contents),
        "checksums": [zlib.crc32(array.tobytes()) for array in arrays],
    }
    if ragged:
        items["lengths"] = [len(array) for array in arrays]
    stream = io.BytesIO()
    np.save(stream, np.concatenate(arrays) if ragged else np.stack(arrays))
    write_text(folder / items_file(name), json.dumps(items))
    write_bytes(folder / array_file(name), stream.getvalue())


def checked(
    identity: str, array: NDArray[Any], dtype: str, shape: tuple[int, ...] | None, ragged: bool
) -> NDArray[Any]:
    """Return an array in the dtype of the store.

    Args:
        identity: Of the item, for the message.
        array: Its features.
        dtype: Of the store.
        shape: Of the other items, without the first axis if `ragged`; None for the first.
        ragged: Whether items differ in the first axis.

    Raises:
        MalformedRecordError: If its shape differs, or a value is not finite in that dtype.
    """
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(array, dtype=dtype)
    require_shape(identity, made, shape, ragged)
    if not np.isfinite(made).all():
        raise MalformedRecordError(
            f"Features must be finite as {made.dtype.itemsize * 8}-bit floats, but those of {identity!r} are not. "
            "Normalise them, or repair the input."
        )
    return made


def require_shape(
    identity: str, array: NDArray[Any], shape: tuple[int, ...] | None, ragged: bool
) -> tuple[int, ...]:
    """Return the shape of an item, without the first axis if `ragged`; arguments as in `checked`.

    Raises:
        MalformedRecordError: If it is not that of the others.
    """
    own: tuple[int, ...] = array.shape[1:] if ragged else array.shape
    if (shape is not None and own != shape) or (ragged and array.ndim == 0):
        raise MalformedRecordError(
            f"Features must have the shape {shape} of the first item, but {identity!r} has {own}. Pass ragged=True if "
            "the first axis may differ."
        )
    return own
