"""The index of a feature store: what its features depend on, and the shards that belong to it.

It is replaced as a whole, so that a reader sees a store as it was at one moment: a shard that is being written, or
whose run was killed, is no part of it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from weft.data.errors import MissingFileError, StateMismatchError
from weft.data.features.shards import Shard
from weft.data.processes.atomic import write_text

INDEX = "index.json"
VERSION = 2
By = Literal["identity", "name"]


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
    """
    try:
        values: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(
            f"`path` must be a feature store, but {folder} has no {INDEX}. Extract the features first."
        ) from None
    found = values.pop("version", None)
    if found == 1 and values["key"]["weights"] == "imported":
        return _first_version(values)
    if found != VERSION:
        raise StateMismatchError(
            f"`path` must be a feature store of version {VERSION}, but {folder} is of version {found}. Extract the "
            "features again: those of the first version went by paths, which two pictures may share."
        )
    shape = values.pop("item_shape")
    return Index(
        key=FeatureKey(**values.pop("key")),
        shards=tuple(Shard(**shard) for shard in values.pop("shards")),
        item_shape=None if shape is None else tuple(shape),
        **values,
    )


def _first_version(values: dict[str, Any]) -> Index:
    """The index of a store that was imported by the first version: by names, as others gave them, then as now."""
    ends = [*values["starts"][1:], values["count"]]
    counts = [end - start for start, end in zip(values["starts"], ends, strict=True)]
    names = [f"{number:05d}" for number in range(len(counts))]
    sizes = values["bytes"]
    shards = [
        Shard(name, count, {file: size for file, size in sizes.items() if name in file or not number})
        for number, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    key = {name: values["key"][name] for name in ("encoder", "weights", "transform")}
    return Index(
        FeatureKey(**key), "name", "float16", values["ragged"], tuple(values["item_shape"]), tuple(shards)
    )


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
