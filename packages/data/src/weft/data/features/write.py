"""Write existing features into a new store, the whole store at once or not at all."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InvalidArgumentError, MalformedRecordError
from weft.data.features.index import By, FeatureKey, Index
from weft.data.features.shards import Shard, array_file, checked, items_file, shard_name, write_shard
from weft.data.features.store import FeatureStore
from weft.data.processes.atomic import whole_folder


def write_features(
    path: str | os.PathLike[str],
    items: Iterable[tuple[str, NDArray[Any]]],
    key: FeatureKey,
    *,
    ragged: bool = False,
    shard_items: int = 4096,
    dtype: str = "float16",
    by: By = "name",
) -> FeatureStore:
    """Write features; memory holds one shard.

    Args:
        path: Folder of the store; must not exist or be empty.
        items: Pairs of id and array. All arrays have one shape, or, if `ragged`, differ in the first axis.
        key: What the features depend on.
        ragged: Whether items have different lengths, such as frames of videos.
        shard_items: Items per shard.
        dtype: "float16" or "float32".
        by: Whether ids are names that others gave the media, such as those of a published set of features, or
            identities, as `identity_of` makes them.

    Raises:
        MalformedRecordError: If an id repeats, a shape differs, or a value is not finite in that dtype.
        InvalidArgumentError: If there is no item, or the folder holds something.
    """
    index = Index(key, by, dtype, ragged)
    with whole_folder(path) as folder:
        pairs = _checked_pairs(items, index)
        shards: list[Shard] = []
        shape: tuple[int, ...] = ()
        while part := list(islice(pairs, shard_items)):
            ids, arrays = map(list, zip(*part, strict=True))
            shards.append(add_shard(folder, len(shards), ids, arrays, ragged=ragged))
            shape = arrays[0].shape
        if not shards:
            raise InvalidArgumentError("`items` must hold at least one item, but is empty.")
        index.with_shards(shards, shape[1:] if ragged else shape).write(folder)
    return FeatureStore(path)


def add_shard(folder: Path, number: int, ids: list[str], arrays: list[NDArray[Any]], **more: Any) -> Shard:
    """Write a shard and return how an index names it; arguments as for `write_shard`."""
    name = shard_name(number, ids)
    write_shard(folder, name, ids, arrays, **more)
    return described(folder, name, len(ids))


def described(folder: Path, name: str, count: int) -> Shard:
    """A shard that is whole, as an index names it."""
    files = (array_file(name), items_file(name))
    return Shard(name, count, {file: (folder / file).stat().st_size for file in files})


def _checked_pairs(
    items: Iterable[tuple[str, NDArray[Any]]], index: Index
) -> Iterator[tuple[str, NDArray[Any]]]:
    seen: set[str] = set()
    shape: tuple[int, ...] | None = None
    for identity, array in items:
        if identity in seen:
            raise MalformedRecordError(
                f"Ids of features must be unique, but {identity!r} comes twice. Remove one."
            )
        seen.add(identity)
        made, shape = checked(identity, np.asarray(array), index.dtype, shape, index.ragged)
        yield identity, made
