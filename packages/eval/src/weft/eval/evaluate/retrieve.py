"""Retrieval: features of every distinct text and image of a split, and how well each finds its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from weft.data import Retrieval
from weft.eval.evaluate.processes import chunks, each_batch
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
    """Features of every distinct text and image; its arguments are those of `weft.eval.evaluate.predict.predict`.

    Of the progress, texts and images count half each.
    """
    texts = {record.text_id: record for record in records}
    images = {record.media_id: record for record in records}
    total = len(texts) + len(images)

    def encoded(wanted: Sequence[Retrieval], encode: Encode, before: int) -> Array:
        def report(done: int) -> None:
            if progress is not None:
                progress((before + done) * len(records) // total)

        parts = chunks(wanted, batch_size)
        return np.concatenate(each_batch(parts, lambda part: encode(part).float().cpu().numpy(), report))

    text_features = encoded(list(texts.values()), partial(batches.text_features, model, task), before=0)
    image_features = encoded(
        list(images.values()), partial(batches.picture_features, model, task), before=len(texts)
    )
    return Matches(tuple(texts), tuple(images), text_features, image_features)
