"""Retrieval: features of every distinct text and image of a split, and how well each finds its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from weft.data import Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.matches import Array, Matches, reranked_ranks
from weft.eval.evaluate.processes import each_batch
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.metrics import ScoreReport
from weft.eval.metrics.retrieval import retrieval_from_features, retrieval_from_ranks

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


def retrieval_scores(
    matches: Matches, records: Sequence[Retrieval], groups: Mapping[str, Mapping[Any, str]]
) -> ScoreReport:
    """Recall and rank in both directions, whole and by groups.

    Args:
        matches: The features of these records.
        records: The pairs.
        groups: Axis to record id to group.

    Returns:
        The report of `retrieval_from_features`.

    Raises:
        ScoreInputError: If the features belong to other records.
    """
    if {r.text_id for r in records} != set(matches.text_ids) or {r.media_id for r in records} != set(
        matches.image_ids
    ):
        raise ScoreInputError(
            f"`matches` must hold the texts and images of the {len(records)} records, but holds "
            f"{len(matches.text_ids)} texts and {len(matches.image_ids)} images, and some differ. Encode the "
            "same split that is scored."
        )
    shared: dict[str, Any] = {
        "image_ids": matches.image_ids,
        "text_ids": matches.text_ids,
        "image_groups": _regrouped(groups, {r.id: r.media_id for r in records}),
        "text_groups": _regrouped(groups, {r.id: r.text_id for r in records}),
    }
    own = own_texts(matches, records)
    if matches.reranked is not None:
        image_ranks, text_ranks = reranked_ranks(matches, own)
        return retrieval_from_ranks(image_ranks, text_ranks, variant=matches.reranked.variant, **shared)
    return retrieval_from_features(matches.image_features, matches.text_features, own, **shared)


def own_texts(matches: Matches, records: Sequence[Retrieval]) -> list[list[int]]:
    """The rows of each image's own texts, in the order of the images."""
    rows = {text: row for row, text in enumerate(matches.text_ids)}
    texts_of: dict[str, dict[int, None]] = {image: {} for image in matches.image_ids}
    for record in records:
        texts_of[record.media_id][rows[record.text_id]] = None
    return [list(texts_of[image]) for image in matches.image_ids]


def _regrouped(groups: Mapping[str, Mapping[Any, str]], ids: Mapping[str, str]) -> dict[str, dict[Any, str]]:
    return {axis: {ids[record]: name for record, name in members.items()} for axis, members in groups.items()}


def _chunks(records: Sequence[Retrieval], size: int) -> Iterator[Sequence[Retrieval]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
