"""Features that others extracted, brought into a store: read, reduced to the tokens a model takes, written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from weft.core.composites.visual_embedding import pool_grid
from weft.core.errors import ConfigError
from weft.data.errors import MissingFileError
from weft.data.features.foreign import Item, read_feature_parquet, read_hdf5, read_npz
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features
from weft.eval.evaluate.stored import fit_length
from weft.train.errors import RunError

READERS = {".h5": read_hdf5, ".hdf5": read_hdf5, ".parquet": read_feature_parquet, ".npz": read_npz}


def import_features(
    source: Path, store: Path, *, encoder: str = "", tokens: int | None = None
) -> FeatureStore:
    """Write features that others extracted into a memory-mapped store.

    A maximum needs no rounding: training on pooled features gives the very numbers it gives on whole ones.

    Args:
        source: HDF5 files (a group per image, with an array `features`), Parquet shards (columns `id` and
            `features`) or npz files (an array `features` each, as long as the video), or their folder.
        store: A new folder.
        encoder: What made the features; kept in the store. By default the name of `source`.
        tokens: Reduce the features of each image or video to so many, as a model whose `num_visual_tokens` this is
            does in each step: maxima over a square grid, or over the time of a video, zeros after a shorter one. By
            default they stay as they are.

    Raises:
        MissingFileError: If there is no such file.
        MalformedRecordError: If an id repeats, a shape differs, or a value is not finite in 16 bits.
        RunError: If features are no square grid and so cannot be reduced to `tokens`.
    """
    files = [source] if source.is_file() else source.rglob("*")
    kind = next((file.suffix for file in files if file.suffix in READERS), None)
    if kind is None:
        raise MissingFileError(
            f"`SOURCE` must be or hold files that end in {', '.join(READERS)}, but {source} does not. Point it at the "
            "unpacked features."
        )
    items, videos = READERS[kind](source), kind == ".npz"
    transform = "imported" if tokens is None else f"imported, reduced to {tokens} tokens"
    return write_features(
        store,
        items if tokens is None else _reduced(items, tokens, videos),
        FeatureKey(encoder or source.name, "imported", transform),
        ragged=videos and tokens is None,
    )


def _reduced(items: Iterator[Item], tokens: int, videos: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    for identity, array in items:
        features = torch.from_numpy(array)
        try:
            yield identity, (fit_length if videos else pool_grid)(features, tokens).numpy()
        except ConfigError as error:
            raise RunError(f"Features of {identity!r}: {error}") from error
