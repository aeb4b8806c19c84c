"""Retrieval: features of every distinct text and image of a split, and how well each finds its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from weft.data import Retrieval
from weft.eval.evaluate.processes import each_batch
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.metrics.matches import Array, Matches

Encode = Callable[[Sequence[Retrieval]], torch.Tensor]


def retrieve(
    model: Any,
    task: str,
    records: Sequence[Retrieval],
    batches: ReaderBatches,
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Matches:
    """Encode every distinct text and image once; `weft.eval.evaluate.predict` sets the model up for it.

    Args:
        model: One that the reader of `batches` embeds with.
        task: Name of the task.
        records: The pairs.
        batches: Puts the records to the model by its reader.
        batch_size: Texts or images per pass.
        progress: Called with the number of records done so far; texts and images count half each.

    Returns:
        The features.
    """
    texts = {record.text_id: record for record in records}
    images = {record.media_id: record for record in records}
    total = len(texts) + len(images)

    def encoded(wanted: Sequence[Retrieval], encode: Encode, before: int) -> Array:
        def run(chunk: Sequence[Retrieval]) -> Array:
            features: Array = encode(chunk).float().cpu().numpy()
            return features

        def report(done: int) -> None:
            if progress is not None:
                progress((before + done) * len(records) // total)

        return np.concatenate(each_batch(list(_chunks(wanted, batch_size)), run, report))

    text_features = encoded(list(texts.values()), partial(batches.text_features, model, task), before=0)
    image_features = encoded(
        list(images.values()), partial(batches.picture_features, model, task), before=len(texts)
    )
    return Matches(tuple(texts), tuple(images), text_features, image_features)


def _chunks(records: Sequence[Retrieval], size: int) -> Iterator[Sequence[Retrieval]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
