"""Features kept in stores: looked up by what they were made of, read without decoding anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from weft.data import MediaRef
from weft.data.errors import MissingFileError
from weft.data.features.store import FeatureStore
from weft.eval.errors import ScoreInputError, shown
from weft.eval.evaluate.visual import Images, Visual


@dataclass(frozen=True)
class StoredFeatures(Visual):
    """Looks up features in memory-mapped stores.

    Args:
        places: Place of an image or video to its store and its item there.
        tokens: Items of stores whose items differ in length (frames of videos) are brought to this length.
        blank: Return zeros instead, to see what language alone can do.
    """

    places: Mapping[str, tuple[FeatureStore, int]]
    tokens: int
    blank: bool = False

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `visual_features`, shape `(batch, images, tokens, width)`, of 16 bits as stored; models cast."""
        # Each array is copied once, out of its file into the batch.
        flat = torch.from_numpy(np.stack([self._one(ref) for group in images for ref in group]))
        features = flat.unflatten(0, (len(images), -1))
        return {"visual_features": features.zero_() if self.blank else features}

    def fingerprint(self, images: Iterable[MediaRef]) -> str:
        """A digest of the features of some images or videos, in their order, as their checksums tell them."""
        digest = hashlib.sha256()
        for ref in images:
            store, item = self.places[ref.place]
            digest.update(f"{store.checksum(item)} ".encode())
        return digest.hexdigest()

    def _one(self, ref: MediaRef) -> NDArray[Any]:
        store, item = self.places[ref.place]
        if not store.ragged:
            return store[item]
        fitted: NDArray[Any] = fit_length(torch.from_numpy(np.array(store[item])), self.tokens).numpy()
        return fitted


def fit_length(features: Tensor, tokens: int) -> Tensor:
    """Bring a series of frames to a number of tokens: zeros after a shorter one, max-pool a longer one.

    Args:
        features: Shape `(frames, width)`.
        tokens: Tokens wanted.

    Returns:
        Shape `(tokens, width)`, of the same dtype.

    Source: VL-Adapter's code for the features of VALUE: padding is not masked, pooling is adaptive over time.

    >>> fit_length(torch.tensor([[1.0], [3.0], [2.0], [5.0]]), 2).tolist()
    [[3.0], [5.0]]
    """
    frames = features.shape[0]
    if frames <= tokens:
        return functional.pad(features, (0, 0, 0, tokens - frames))
    pooled = functional.adaptive_max_pool1d(features.T[None].float(), tokens)
    return pooled[0].T.to(features.dtype)


def stored_features(
    groups: Iterable[tuple[Sequence[FeatureStore], Iterable[MediaRef]]], *, tokens: int, blank: bool = False
) -> StoredFeatures:
    """Find every image and video in the stores of its task.

    An item of a store that weft extracted belongs to one medium, wherever it is now. An item of features that others
    extracted belongs to a file if its id is the file's path in the data set, or the file's name without ending, such as
    `COCO_val2014_000000000042`. Of several stores, the first that has it serves.

    Args:
        groups: Stores, and the images and videos whose features are in one of them.
        tokens: See `StoredFeatures`.
        blank: See `StoredFeatures`.

    Raises:
        ScoreInputError: If features are missing, naming how many and the stores, or two files go by one name.
    """
    places: dict[str, tuple[FeatureStore, int]] = {}
    for own, images in groups:
        missing: dict[str, None] = {}
        files: dict[tuple[FeatureStore, int], MediaRef] = {}
        for ref in images:
            if ref.place in places:
                continue
            found = _found(ref, own)
            if found is None:
                missing[ref.path] = None
                continue
            places[ref.place] = found
            if found[0].by_name:
                _require_one_file(ref, files.setdefault(found, ref), found[0])
        if missing:
            raise ScoreInputError(
                f"`features` must hold every image or video of the data, but {len(missing)} have none in "
                f"{' or '.join(str(store.path) for store in own)}: {shown(list(missing))}. What weft extracted "
                "is found by the picture itself, what was imported by the file's path or its name without ending. "
                "Extract or import the rest."
            )
    return StoredFeatures(places, tokens, blank)


def _found(ref: MediaRef, stores: Sequence[FeatureStore]) -> tuple[FeatureStore, int] | None:
    for name in (ref.path, PurePosixPath(ref.path).stem):
        for store in stores:
            item = store.named(name) if store.by_name else _extracted(ref, store)
            if item is not None:
                return store, item
    return None


def _extracted(ref: MediaRef, store: FeatureStore) -> int | None:
    try:
        return store.find(ref)
    except MissingFileError:
        return None


def _require_one_file(ref: MediaRef, other: MediaRef, store: FeatureStore) -> None:
    """Refuse two files under one name; spans of one video may share its features."""
    if ref.store.place(ref.path) != other.store.place(other.path):
        raise ScoreInputError(
            f"`features` must tell the pictures of a task apart, but {store.path} goes by names, and {other.uri} and "
            f"{ref.uri} have one. Give the files different names, or extract the features with `weft features`."
        )
