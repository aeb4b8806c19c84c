"""From a record's images to what a model sees: decoded pixels, or features extracted once."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from weft.data.records import MediaRef
from weft.eval.evaluate.image_processor import Transform, stacked

Images = Sequence[Sequence[MediaRef]]


class Visual(Protocol):
    """Turns the images of a batch into model inputs."""

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return model inputs for a batch in which every example has the same number of images."""


@runtime_checkable
class DrawnVisual(Protocol):
    """A visual that shows other parts of its media in training than in testing."""

    def drawn(
        self, images: Images, generators: Sequence[random.Random], texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return model inputs for a training batch, drawn by the generator of each example, beside its text."""


@dataclass(frozen=True)
class Pixels:
    """Decodes and transforms images for a model with a vision tower.

    Args:
        transform: Resize and normalisation.
        keep_mib: Decoded images are kept in memory up to this many MiB, so that later epochs need not decode.
    """

    transform: Transform
    keep_mib: float = 0.0
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def pixels(self, images: Sequence[MediaRef]) -> Tensor:
        """Pixels of some images, shape `(images, 3, height, width)`."""
        return stacked([self._one(ref) for ref in images])

    def _one(self, ref: MediaRef) -> Any:
        uri = ref.uri
        if uri in self._kept:
            return self._kept[uri]
        pixels = self.transform(ref.image())
        if (len(self._kept) + 1) * pixels.nbytes <= self.keep_mib * 2**20:
            self._kept[uri] = pixels
        return pixels

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `pixel_values`, shape `(batch, images, 3, height, width)`."""
        flat = self.pixels([ref for group in images for ref in group])
        return {"pixel_values": flat.unflatten(0, (len(images), -1))}


@dataclass(frozen=True)
class Features:
    """Looks up features that were extracted once.

    Args:
        table: Shape `(images, tokens, width)`, fp16.
        rows: Address of an image to its row.
    """

    table: Tensor
    rows: dict[str, int]

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `visual_features`, shape `(batch, images, tokens, width)`, fp16; models cast."""
        index = torch.tensor([[self.rows[ref.uri] for ref in group] for group in images])
        return {"visual_features": self.table[index]}


def extract_features(
    encode: Callable[[Tensor], Tensor],
    images: Sequence[MediaRef],
    pixels: Pixels,
    *,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Run a frozen encoder once over every distinct image.

    Args:
        encode: Pixels `(images, 3, height, width)` to features `(images, tokens, width)`.
        images: Images; repeated ones are read once.
        pixels: Decoding and transform.
        batch_size: Images per pass.
        progress: Called with (images done, images in all).

    Returns:
        The features, fp16 on the CPU.
    """
    distinct = {ref.uri: ref for ref in images}
    refs = list(distinct.values())
    parts = []
    with torch.no_grad():
        for start in range(0, len(refs), batch_size):
            parts.append(encode(pixels.pixels(refs[start : start + batch_size])).half().cpu())
            if progress is not None:
                progress(min(start + batch_size, len(refs)), len(refs))
    return Features(torch.cat(parts), {uri: row for row, uri in enumerate(distinct)})


def blank_features(
    encode: Callable[[Tensor], Tensor], images: Sequence[MediaRef], pixels: Pixels
) -> Features:
    """Zeros in the shape of features, to see what language alone can do.

    Args:
        encode: See `extract_features`; runs on one image, for the shape.
        images: Images that are looked up later; at least one.
        pixels: Decoding and transform.
    """
    with torch.no_grad():
        shape = encode(pixels.pixels(images[:1])).shape
    return Features(torch.zeros(shape, dtype=torch.float16), dict.fromkeys((ref.uri for ref in images), 0))


def features_key(images: Sequence[MediaRef], transform: Transform, encoder: str) -> str:
    """Name of a feature file: changes with the images, the transform and the encoder's fingerprint."""
    digest = hashlib.sha256(f"{transform.fingerprint()}\0{encoder}\0".encode())
    for uri in sorted({ref.uri for ref in images}):
        digest.update(uri.encode() + b"\0")
    return digest.hexdigest()[:24]


def cached_features(
    folder: Path | None,
    key: str,
    images: Sequence[MediaRef],
    extract: Callable[[], Features],
) -> Features:
    """Features from `folder` if they were extracted before, else extracted now and kept there.

    Args:
        folder: Folder of feature files, or None to keep nothing.
        key: From `features_key`.
        images: The images, which fix the rows.
        extract: Makes the features.
    """
    path = None if folder is None else folder / f"{key}.npy"
    rows = {uri: row for row, uri in enumerate({ref.uri: None for ref in images})}
    if path is not None and path.exists():
        table: Any = np.load(path, mmap_mode="r+")
        return Features(torch.from_numpy(table), rows)
    features = extract()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, features.table.numpy())
        partial.replace(path)
    return features
