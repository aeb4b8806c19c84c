"""The index of a feature store: what its features depend on, and the shards that belong to it.

It is replaced as a whole, so that a reader sees a store as it was at one moment: a shard that is being written, or
whose run was killed, is no part of it.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from weft.data.errors import MissingFileError, StateMismatchError
from weft.data.features.shards import Shard
from weft.data.processes.atomic import write_text
from weft.data.records.rows import Kept, read_kept

INDEX = "index.json"
VERSION = 2
By = Literal["identity", "name"]
_FILE = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)
_SHARD = re.compile(r"[0-9]{5,9}(-[0-9a-f]+)?")


@dataclass(frozen=True)
class FeatureKey:
    """What features depend on beside the medium; features of equal keys are interchangeable.

    Args:
        encoder: Model id.
        weights: Fingerprint of all that its outputs depend on.
        transform: Fingerprint of what is done to an image before.
    """

    encoder: str
    weights: str
    transform: str

    def digest(self) -> str:
        """Return a short hash, fit for a folder name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Index:
    """What `index.json` says.

    Args:
        key: What the features depend on.
        by: Whether items go by the identity of a medium, or by a name that others gave them.
        dtype: Of the features.
        ragged: Whether items differ in the first axis.
        item_shape: Shape of an item, None for an axis that differs; None while there is no item.
        shards: The shards, by number.
    """

    key: FeatureKey
    by: By
    dtype: str = "float16"
    ragged: bool = False
    item_shape: tuple[int | None, ...] | None = None
    shards: tuple[Shard, ...] = field(default=())

    def with_shards(self, shards: list[Shard], shape: tuple[int, ...]) -> "Index":
        """Return an index with more shards, of items of a shape (without the first axis if ragged)."""
        own: tuple[int | None, ...] = (None, *shape) if self.ragged else shape
        every = sorted([*self.shards, *shards], key=lambda shard: shard.number)
        return replace(self, item_shape=own, shards=tuple(every))

    def write(self, folder: Path) -> None:
        """Write it, whole."""
        write_text(folder / INDEX, json.dumps({"version": VERSION, **asdict(self)}, indent=1))


def read_index(folder: Path) -> Index:
    """Read the index of a store.

    Raises:
        MissingFileError: If the folder is no store.
        StateMismatchError: If it is one of another version.
        CorruptMediaError: If it is damaged.
    """
    try:
        kept = read_kept(folder / INDEX)
    except FileNotFoundError:
        raise MissingFileError(
            f"`path` must be a feature store, but {folder} has no {INDEX}. Extract the features first."
        ) from None
    found = kept.value.get("version")
    if found == 1 and kept.object("key").text("weights") == "imported":
        return _first_version(kept)
    if found != VERSION:
        raise StateMismatchError(
            f"`path` must be a feature store of version {VERSION}, but {folder} is of version {found}. Extract the "
            "features again: those of the first version went by paths, which two pictures may share."
        )
    by: Any = kept.one_of("by", get_args(By))
    dtype, ragged = kept.one_of("dtype", ("float16", "float32")), kept.boolean("ragged")
    shards = tuple(map(_shard, kept.objects("shards")))
    return Index(_key(kept), by, dtype, ragged, _shape(kept, ragged), shards)


def _key(kept: Kept) -> FeatureKey:
    key = kept.object("key")
    return FeatureKey(key.text("encoder"), key.text("weights"), key.text("transform"))


def _shape(kept: Kept, ragged: bool) -> tuple[int | None, ...] | None:
    """The shape of an item, of which the first axis is None where it differs."""
    if kept.field("item_shape") is None:
        return None
    first, rest = kept.items("item_shape")[:ragged], kept.items("item_shape")[ragged:]
    if first != [None] * ragged or not all(type(size) is int and size >= 0 for size in rest):
        kept.fail("`item_shape` must hold sizes of axes")
    return (*first, *rest)


def _shard(kept: Kept) -> Shard:
    name, sizes = kept.text("name"), kept.object("bytes")
    if not _SHARD.fullmatch(name) or not all(map(_FILE.fullmatch, sizes.value)):
        kept.fail("must name files in the folder of the store")
    bytes_of = {file: sizes.count(file) for file in sizes.value}
    if kept.count("count") > sum(bytes_of.values()):
        kept.fail("must have files as large as its items")
    return Shard(name, kept.count("count"), bytes_of)


def _first_version(kept: Kept) -> Index:
    """The index of a store that was imported by the first version: by names, as others gave them, then as now."""
    starts, ragged = kept.counts("starts"), kept.boolean("ragged")
    counts = [end - start for start, end in pairwise([*starts, kept.count("count")])]
    if min(counts, default=0) < 0:
        kept.fail("`starts` must rise up to `count`")
    sizes = {file: kept.object("bytes").count(file) for file in kept.object("bytes").value}
    if not all(map(_FILE.fullmatch, sizes)):
        kept.fail("must name files in the folder of the store")
    shards = []
    for number, count in enumerate(counts):
        name = f"{number:05d}"
        own = {file: size for file, size in sizes.items() if name in file or not number}
        shards.append(Shard(name, count, own))
    return Index(_key(kept), "name", "float16", ragged, _shape(kept, ragged), tuple(shards))


def require_key(folder: Path, found: FeatureKey, key: FeatureKey) -> None:
    """Refuse a store of other features.

    Raises:
        StateMismatchError: Naming the parts that differ.
    """
    differing = [name for name, value in asdict(key).items() if asdict(found)[name] != value]
    if differing:
        raise StateMismatchError(
            f"`key` must equal that of {folder}, but differs in {', '.join(differing)}. Extract the features again, "
            "into another folder, or open the store that belongs to these weights and this transform."
        )
