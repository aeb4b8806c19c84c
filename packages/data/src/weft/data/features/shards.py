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
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, MalformedRecordError
from weft.data.processes.atomic import write_bytes, write_text
from weft.data.records.rows import parse_kept, read_kept

# What numpy raises where a header or a size is not that of an array.
_NO_ARRAY = (OSError, ValueError, EOFError, TypeError, SyntaxError, TokenError, OverflowError, MemoryError)


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

    Where the index tells the number of items and their shape (without the first axis if `ragged`), they are compared.

    Raises:
        CorruptMediaError: If its file holds something else.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        ragged: bool,
        *,
        count: int | None = None,
        shape: tuple[int | None, ...] | None = None,
    ) -> None:
        self._folder, self._name, self._ragged = folder, name, ragged
        file = folder / array_file(name)
        self._array = open_array(file, "f")
        told = self._array.shape
        if (shape is not None and told[1:] != shape) or (not ragged and count not in (None, told[0])):
            raise CorruptMediaError(
                f"{file} must hold the {count} items of shape {shape} that the index names, but has the shape {told}. "
                "Extract the features again."
            )

    def row(self, item: int) -> NDArray[Any]:
        """Return the features of one item as a view into the file."""
        place = slice(self._offsets[item], self._offsets[item + 1]) if self._ragged else item
        row: NDArray[Any] = self._array[place]
        return row

    def is_whole(self, item: int) -> bool:
        """Tell whether an item matches its checksum."""
        sums = self._items["checksums"]
        return item < len(sums) and zlib.crc32(np.ascontiguousarray(self.row(item)).tobytes()) == sums[item]

    @cached_property
    def _items(self) -> dict[str, Any]:
        return read_items(self._folder, self._name)

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        lengths = self._items.get("lengths", [])
        if len(lengths) != len(self._items["ids"]) or sum(lengths) != len(self._array):
            raise CorruptMediaError(
                f"{self._folder / items_file(self._name)} must name the length of every item, {len(self._array)} "
                "altogether, but does not. Extract the features again."
            )
        return np.cumsum([0, *lengths], dtype=np.int64)


def open_array(file: Path, kind: str) -> NDArray[Any]:
    """Memory-map an array that weft wrote, whose numbers are of one of the kinds that numpy names in a letter.

    Raises:
        CorruptMediaError: If it is no such array; objects, which numpy would unpickle, are none.
    """
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        told = f"it holds {array.dtype}" if isinstance(array, np.ndarray) else "it is an archive"
    except _NO_ARRAY as error:
        array, told = np.empty(()), str(error)
    if not isinstance(array, np.ndarray) or not array.ndim or array.dtype.kind not in kind:
        raise CorruptMediaError(
            f"{file} must be an array of features, but {told}. Extract the features again."
        )
    return array


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
    """What the rows are: `ids`, `contents` (or empty), `checksums` and, of ragged shards, `lengths`.

    Raises:
        CorruptMediaError: If the file does not say that.
    """
    file = folder / items_file(name)
    if not file.is_file() and "-" not in name:
        return _items_of_first_version(folder, int(name))
    kept = read_kept(file)
    values: dict[str, Any] = {key: list(kept.texts(key)) for key in ("ids", "contents")}
    values |= {key: kept.counts(key) for key in ("checksums", "lengths") if kept.has(key)}
    if len(values.get("checksums", ())) != len(values["ids"]):
        kept.fail("must hold a checksum for each id")
    return values


def _items_of_first_version(folder: Path, number: int) -> dict[str, Any]:
    """The items of a shard where one file names those of all."""
    index = read_kept(folder / "index.json")
    start, end = [*index.counts("starts"), index.count("count")][number : number + 2]
    ids = parse_kept(b'{"ids": %b}' % (folder / "ids.json").read_bytes(), str(folder / "ids.json"))
    values = {
        "ids": list(ids.texts("ids"))[start:end],
        "contents": [],
        "checksums": open_array(folder / "checksums.npy", "iu")[start:end].tolist(),
    }
    if index.boolean("ragged"):
        values["lengths"] = np.diff(open_array(folder / "offsets.npy", "iu")[start : end + 1]).tolist()
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
    """Write a shard whole, under the name that `shard_name` gives it.

    The features of the items are as `checked` gives them; `contents` are digests of what was encoded, if known.
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
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return an array in the dtype of the store, and its shape, without the first axis if `ragged`.

    The shape must be that of the other items, which is None for the first.

    Raises:
        MalformedRecordError: If its shape differs, or a value is not finite in that dtype.
    """
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(array, dtype=dtype)
    own = require_shape(identity, made, shape, ragged)
    if not np.isfinite(made).all():
        raise MalformedRecordError(
            f"Features must be finite as {made.dtype.itemsize * 8}-bit floats, but those of {identity!r} are not. "
            "Normalise them, or repair the input."
        )
    return made, own


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
