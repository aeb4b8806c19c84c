"""Two-stage retrieval: similarities choose candidates, and a model that looks at both sides at once orders them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from weft.data import Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.processes import chunks
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.retrieve import retrieve
from weft.eval.metrics.matches import Array, Matches, Reranked, best_places


def rerank(
    model: Any,
    task: str,
    records: Sequence[Retrieval],
    batches: ReaderBatches,
    *,
    candidates: int,
    similarity_weight: float = 0.0,
    frame_aware: bool = False,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Matches:
    """The features of both sides, with each text and image matched with its best candidates of the other side.

    `score = logit of "yes" + similarity_weight * similarity`. Images are read once more, one after another, and
    compared with the texts that they chose or that chose them, so that the tokens of one image are in memory.

    Args:
        model: One that the reader of `batches` matches with, in evaluation mode and routed to `task`.
        task: Name of the task.
        records: The pairs.
        batches: Puts the records to the model by its reader.
        candidates: Best of the first stage that are matched, in each direction; no more than there are.
        similarity_weight: Share of the first stage in the score; UniAdapter's code takes 0, BLIP's 1.
        frame_aware: Whether keys of frames are weighted by their likeness to the text, by the unit `frame_attention`.
        batch_size: Texts or images per pass of the first stage, and pairs per pass of the second.
        progress: Called with the number of records done so far; each stage counts half.

    Raises:
        ScoreInputError: If `candidates` is below 1.

    Source: ALBEF (Li et al. 2021), section 3.4; BLIP's evaluation code.
    """
    if candidates < 1:
        raise ScoreInputError(
            f"`candidates` must be at least 1, but is {candidates}. BLIP takes 128 for Flickr30k and 256 for COCO."
        )
    first = None if progress is None else (lambda done: progress(done // 2))
    matches = retrieve(model, task, records, batches, batch_size=batch_size, progress=first)
    texts, images = matches.text_features, matches.image_features
    best_texts, best_images = _best(images, texts, candidates), _best(texts, images, candidates)
    wanted = _pairs(best_texts, best_images)
    text_scores, image_scores = (np.empty(best.shape, np.float32) for best in (best_texts, best_images))
    of_text, of_image = ({getattr(r, key): r for r in records} for key in ("text_id", "media_id"))
    for image, image_id in enumerate(matches.image_ids):
        rows = sorted(wanted[image])
        chosen = [of_text[matches.text_ids[row]] for row in rows]
        features = torch.from_numpy(texts[rows]) if frame_aware else None
        found = batches.matched(model, task, of_image[image_id], chosen, features, batch_size)
        logits = found.float().cpu().numpy()
        scores = dict(zip(rows, logits + similarity_weight * (texts[rows] @ images[image]), strict=True))
        text_scores[image] = [scores[row] for row in best_texts[image].tolist()]
        for row, column in zip(*np.nonzero(best_images[rows] == image), strict=True):
            image_scores[rows[row], column] = scores[rows[row]]
        if progress is not None:
            progress((len(records) + (image + 1) * len(records) // len(images)) // 2)
    variant = _variant(best_texts, best_images, similarity_weight, frame_aware)
    return replace(matches, reranked=Reranked(variant, best_texts, text_scores, best_images, image_scores))


def _variant(best_texts: Array, best_images: Array, similarity_weight: float, frame_aware: bool) -> str:
    """How the scores were made, in words."""
    variant = f"best {best_texts.shape[1]} texts and {best_images.shape[1]} images matched"
    variant += f", similarity times {similarity_weight:g} added" if similarity_weight else ""
    return variant + (", frame-aware" if frame_aware else "")


def _pairs(best_texts: Array, best_images: Array) -> dict[int, set[int]]:
    """Image to the texts that it is matched with: those it chose, and those that chose it."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for image, row in enumerate(best_texts.tolist()):
        wanted[image].update(row)
    for text, row in enumerate(best_images.tolist()):
        for image in row:
            wanted[image].add(text)
    return wanted


def _best(rows: Array, columns: Array, count: int) -> Array:
    return np.concatenate([best_places(part @ columns.T, count) for part in chunks(rows, 512)])
