"""The outcome of a second stage of retrieval: new scores for the best candidates, and the ranks they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from weft.eval.evaluate.retrieve import Matches

Array = npt.NDArray[Any]


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


def reranked_ranks(matches: Matches, texts_of_image: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Ranks from 1 in both directions; from image to text the best placed of the image's own texts counts.

    Candidates are ranked by their new scores, a wrong one of equal score before the right one. Behind them come all
    others, as the first stage ranked them, ties likewise.

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
