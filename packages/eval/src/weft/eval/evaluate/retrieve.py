"""Retrieval: features of every distinct text and image of a split, and how well each finds its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from weft.data import Retrieval
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.processes import each_batch
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.metrics.matches import Array, Matches

Encode = Callable[[Sequence[Retrieval]], torch.Tensor]


def retrieve(
    model: Any,
    task: str,
    records: Sequence[Retrieval],
    batches: Batches | ReaderBatches,
    *,
    batch_size: int,
    device: str | torch.device,
    progress: Callable[[int], None] | None = None,
) -> Matches:
    """Encode every distinct text and image once; `weft.eval.evaluate.predict` sets the model up for it.

    Args:
        model: A model with `encode_text` and `encode_image` that return features of length one, or one that the
            reader of `batches` embeds with.
        task: Name of the task.
        records: The pairs.
        batches: Makes the inputs.
        batch_size: Texts or images per pass.
        device: Where the model lies.
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

    of_texts, of_images = _encoders(model, task, batches, device)
    text_features = encoded(list(texts.values()), of_texts, before=0)
    image_features = encoded(list(images.values()), of_images, before=len(texts))
    return Matches(tuple(texts), tuple(images), text_features, image_features)


def _encoders(
    model: Any, task: str, batches: Batches | ReaderBatches, device: str | torch.device
) -> tuple[Encode, Encode]:
    """What makes features of the texts, and of the images, of some records."""
    if isinstance(batches, ReaderBatches):
        return (
            lambda chunk: batches.text_features(model, task, chunk, device),
            lambda chunk: batches.picture_features(model, task, chunk, device),
        )

    def encoder(encode: Any, inputs: Callable[..., Any]) -> Encode:
        return lambda chunk: encode(**{name: value.to(device) for name, value in inputs(chunk).items()})

    return (
        encoder(model.encode_text, lambda chunk: batches.texts([(task, record) for record in chunk])),
        encoder(model.encode_image, batches.images),
    )


def _chunks(records: Sequence[Retrieval], size: int) -> Iterator[Sequence[Retrieval]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
