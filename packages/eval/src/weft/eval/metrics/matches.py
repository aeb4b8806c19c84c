"""What retrieval finds: features of both sides, new scores of the best by a second stage, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weft.eval.errors import ScoreInputError
from weft.eval.metrics.registry import register_metric
from weft.eval.metrics.report import ScoreReport
from weft.eval.metrics.retrieval import retrieval_from_features, retrieval_from_ranks

Array = npt.NDArray[Any]
RANKS = tuple(f"{way}_{name}" for name in ("R@1", "R@5", "R@10", "MedR", "MeanR") for way in ("i2t", "t2i"))


@dataclass(frozen=True)
class Reranked:
    """New scores of the best candidates by first-stage similarity.

    Attributes:
        variant: How the scores were made.
        texts: For each image the rows of its candidate texts, best of the first stage first, shape `(images, k)`.
        text_scores: Their new scores, of the same shape.
        images: For each text the rows of its candidate images, shape `(texts, k)`.
        image_scores: Their new scores, of the same shape.
    """

    variant: str
    texts: Array
    text_scores: Array
    images: Array
    image_scores: Array


@dataclass(frozen=True)
class Matches:
    """Features of both sides; similarity is their inner product.

    Attributes:
        text_ids: Identities of the texts.
        image_ids: Identities of the images or videos.
        text_features: Shape `(texts, size)`.
        image_features: Shape `(images, size)`.
        reranked: What a second stage made of the best of them, or None.
    """

    text_ids: tuple[str, ...]
    image_ids: tuple[str, ...]
    text_features: Array
    image_features: Array
    reranked: Reranked | None = None

    def ranked(self, best: int = 10) -> dict[str, dict[str, list[str]]]:
        """The best matches of each text and of each image, best first, as plain data.

        Args:
            best: How many are listed.

        Returns:
            `text_to_image` and `image_to_text`: id to the ids of the other side.
        """
        if (second := self.reranked) is not None:
            images = np.take_along_axis(second.images, best_places(second.image_scores, best), axis=1)
            texts = np.take_along_axis(second.texts, best_places(second.text_scores, best), axis=1)
        else:
            similarity = self.text_features @ self.image_features.T
            images, texts = best_places(similarity, best), best_places(similarity.T, best)
        return {
            "text_to_image": _named(self.text_ids, self.image_ids, images),
            "image_to_text": _named(self.image_ids, self.text_ids, texts),
        }


def reranked_ranks(matches: Matches, texts_of_image: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Ranks from 1 in both directions; from image to text the best placed of the image's own texts counts.

    Candidates are ranked by their new scores, a wrong one of equal score before the right one. Behind them come all
    others, as the first stage ranked them, ties too.

    Args:
        matches: Features with `reranked`.
        texts_of_image: The rows of each image's own texts.

    Returns:
        Rank of each image, shape `(images,)`, and of each text, shape `(texts,)`.
    """
    reranked = matches.reranked
    assert reranked is not None, "asked for only where there is a second stage"
    texts, images = matches.text_features, matches.image_features
    owners = np.empty(len(texts), dtype=np.int64)
    for image, own in enumerate(texts_of_image):
        owners[list(own)] = image
    image_ranks = np.array(
        [
            _rank(np.asarray(own), reranked.texts[row], reranked.text_scores[row], images[row] @ texts.T)
            for row, own in enumerate(texts_of_image)
        ]
    )
    text_ranks = np.array(
        [
            _rank(owners[row, None], reranked.images[row], reranked.image_scores[row], texts[row] @ images.T)
            for row in range(len(texts))
        ]
    )
    return image_ranks, text_ranks


def _rank(own: Array, candidates: Array, scores: Array, similarity: Array) -> int:
    is_own = np.isin(candidates, own)
    if is_own.any():
        best = scores[is_own].max()
        return 1 + int((scores > best).sum()) + int((scores[~is_own] == best).sum())
    behind = np.ones(len(similarity), dtype=bool)
    behind[candidates] = False
    best = similarity[own].max()
    wrong = behind.copy()
    wrong[own] = False
    above = int((similarity[behind] > best).sum()) + int((similarity[wrong] == best).sum())
    return 1 + len(candidates) + above


def best_places(scores: Array, count: int) -> Array:
    """Places of the highest scores of each row, shape `(rows, count)` at most, of equal ones the first first."""
    # A copy, so that the order of the others is given back.
    return np.argsort(-scores, axis=1, kind="stable")[:, :count].copy()


def _named(rows: Sequence[str], columns: Sequence[str], order: Array) -> dict[str, list[str]]:
    return {row: [columns[column] for column in own] for row, own in zip(rows, order.tolist(), strict=True)}


@register_metric("retrieval", "retrieval", headlines=("mean_recall", "rsum", *RANKS))
def retrieval_scores(
    matches: Matches, records: Sequence[Any], groups: Mapping[str, Mapping[Any, str]]
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
    shown = {r.text_id for r in records}, {r.media_id for r in records}
    if shown != (set(matches.text_ids), set(matches.image_ids)):
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


def own_texts(matches: Matches, records: Sequence[Any]) -> list[list[int]]:
    """The rows of each image's own texts, in the order of the images."""
    rows = {text: row for row, text in enumerate(matches.text_ids)}
    texts_of: dict[str, dict[int, None]] = {image: {} for image in matches.image_ids}
    for record in records:
        texts_of[record.media_id][rows[record.text_id]] = None
    return [list(texts_of[image]) for image in matches.image_ids]


def _regrouped(groups: Mapping[str, Mapping[Any, str]], ids: Mapping[str, str]) -> dict[str, dict[Any, str]]:
    return {axis: {ids[record]: name for record, name in members.items()} for axis, members in groups.items()}
