"""Features of pictures that a model's own processor reads: looked up in a store, so that no tower runs in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.data import MediaRef
from weft.data.features.store import FeatureStore
from weft.eval.readers import Batch, PictureFeatures, Reader, ReaderError, Row

COMPANY = "several"
"""What features of a picture go by that is one of several in its row, where that makes a difference."""


@dataclass
class StoredPictures:
    """Puts features in the place of the pictures of training batches.

    A picture is decoded once, for its size; then a blank one of that size tells the processor how many tokens it is.

    Args:
        reader: Reads the model.
        store: The features.
        places: Place of a picture and its tag to the item in the store.
        form: How the model takes features; its values are not looked at.
    """

    reader: Reader
    store: FeatureStore
    places: Mapping[tuple[str, str], int]
    form: PictureFeatures
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def shown(self, rows: Sequence[Row]) -> list[Row]:
        """Rows to train on, with pictures of the right size."""
        return [with_parts(row, self._sized) for row in rows]

    def instead(self, batch: Batch, rows: Sequence[Row]) -> Batch:
        """A training batch with features in the place of pixels, of rows with their own pictures.

        Raises:
            ReaderError: If a row has more or fewer tokens for pictures than features.
        """
        found: list[Tensor] = []
        for row, tokens in zip(rows, self.reader.picture_tokens(batch).tolist(), strict=True):
            own = [self._one(picture, tag_of(self.reader, len(row.pictures))) for picture in row.pictures]
            count = sum(map(len, own))
            if count != tokens:
                raise ReaderError(
                    f"`training.vision` may be 'stored' only where a picture is seen alike in every row, but "
                    f"{row.name} has {tokens} tokens for pictures and features for {count}. Set training.vision=frozen."
                )
            found += own
        if not found:
            return batch
        return batch.reading(replace(self.form, values=torch.cat(found)))

    def _sized(self, part: Any) -> Any:
        if not isinstance(part, MediaRef):
            return part
        from PIL import Image

        if part.place in self._sizes:
            return Image.new("RGB", self._sizes[part.place])
        picture = part.image()
        self._sizes[part.place] = picture.size
        return picture

    def _one(self, picture: MediaRef, tag: str) -> Tensor:
        return torch.from_numpy(np.array(self.store[self.places[picture.place, tag]]))


def with_parts(row: Row, change: Callable[[Any], Any]) -> Row:
    """A row with what `change` makes of each of its parts."""
    turns = [replace(turn, parts=tuple(map(change, turn.parts))) for turn in row.turns]
    return replace(row, turns=tuple(turns))


def tag_of(reader: Reader, pictures: int) -> str:
    """What the features of a picture depend on beside itself, in a row of so many."""
    return COMPANY if pictures > 1 and reader.sees_alone else ""
