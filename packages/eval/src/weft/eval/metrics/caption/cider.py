"""CIDEr-D: consensus with the references, n-grams weighted by how rare they are among the references."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from weft.eval.metrics.caption.ngrams import MAX_ORDER, Array, Ngram, NgramTable, Order

_SIGMA = 6.0
_SCALE = 10.0


class DocumentFrequency:
    """In how many images' references each n-gram occurs.

    Args:
        counts: n-gram to number of images.
        images: Number of images counted.
    """

    def __init__(self, counts: Mapping[Ngram, float], images: float) -> None:
        self.counts = counts
        self.images = images

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> DocumentFrequency:
        """Count over the tokenised references of each image."""
        table = NgramTable([text for texts in references for text in texts])
        image = np.repeat(np.arange(len(references)), [len(texts) for texts in references])
        counts: dict[Ngram, float] = {}
        for place, order in enumerate(table.orders):
            found = _images_with(order, image, 0)
            counts |= {table.ngram(place, number): float(times) for number, times in enumerate(found)}
        return cls(counts, len(references))


def cider_d(
    table: NgramTable, image: Array, candidates: int, frequency: DocumentFrequency | None = None
) -> Array:
    """CIDEr-D of every candidate.

    With one image every n-gram occurs in all images, every weight is 0 and so is the score; scores of subsets
    differ from those of the whole set, because rarity does.

    Args:
        table: The candidates' sentences, then all references.
        image: Shape `(sentences,)`, the image each sentence belongs to; candidate `i` is of image `i`.
        candidates: How many of the sentences are candidates.
        frequency: Document frequencies; by default those of the references.

    Returns:
        Shape `(candidates,)`, scores from 0 to 10.

    Source:
        Vedantam et al. 2015, section on CIDEr-D, in the form of pycocoevalcap (sigma 6, clipping, length
        penalty over bigram counts). Every sum runs in its order, so that the last bit agrees.
    """
    bigrams = np.maximum(0, table.lengths - 1)
    difference = bigrams[:candidates][image[candidates:]] - bigrams[candidates:]
    penalty = _table_of(difference, lambda delta: math.e ** (-(float(delta) ** 2) / (2 * _SIGMA**2)))
    images = float(candidates if frequency is None else frequency.images)
    totals = np.zeros((MAX_ORDER, candidates))
    for place, order in enumerate(table.orders):
        if frequency is None:
            occurrences = _images_with(order, image, candidates)
        else:
            given = frequency.counts
            occurrences = np.array(
                [given.get(table.ngram(place, number), 0.0) for number in range(len(order.examples))]
            )
        similar = _similarities(order, image, candidates, _rarity(occurrences, images))
        # The weights of a bin are added one after the other, in the order of the references.
        totals[place] = np.bincount(image[candidates:], weights=similar * penalty, minlength=candidates)
    references = np.bincount(image[candidates:], minlength=candidates)
    return (totals[0] + totals[1] + totals[2] + totals[3]) / MAX_ORDER / references * _SCALE


def _images_with(order: Order, image: Array, candidates: int) -> Array:
    """Number of images whose references hold each n-gram."""
    keys = np.unique(order.keys(image)[order.sentence >= candidates])
    return np.bincount(keys % order.distinct, minlength=len(order.examples))


def _rarity(occurrences: Array, images: float) -> Array:
    """Inverse document frequency, by the scalar logarithm: the one of arrays may differ in the last bit."""
    log_images = float(np.log(images))
    return _table_of(occurrences, lambda times: log_images - float(np.log(max(1.0, times))))


def _table_of(values: Array, function: Callable[[float], float]) -> Array:
    """Apply a function of one number to every distinct value once."""
    distinct, place = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in distinct.tolist()], dtype=np.float64)[place]


def _similarities(order: Order, image: Array, candidates: int, rarity: Array) -> Array:
    """Clipped cosine of each reference with its candidate; shape `(references,)`."""
    weights = order.count * rarity[order.ngram]
    squares = _table_of(weights, lambda weight: weight**2)
    norms = np.sqrt(np.bincount(order.sentence, weights=squares, minlength=len(image)))

    keys = order.keys(image)
    mine = np.flatnonzero(order.sentence < candidates)
    theirs = np.flatnonzero(order.sentence >= candidates)
    mine = mine[np.argsort(keys[mine])]
    found = np.searchsorted(keys[mine], keys[theirs])
    matched = np.append(keys[mine], -1)[found] == keys[theirs]
    theirs, mine = theirs[matched], mine[found[matched]]
    # The official sum runs over the candidate's n-grams in order of first occurrence.
    by_candidate = np.lexsort((mine, order.sentence[theirs]))
    theirs, mine = theirs[by_candidate], mine[by_candidate]
    products = np.minimum(weights[mine], weights[theirs]) * weights[theirs]
    dots = np.bincount(order.sentence[theirs], weights=products, minlength=len(image))[candidates:]
    dots = dots.astype(np.float64)  # bincount of nothing is of integers

    norm_product = norms[:candidates][image[candidates:]] * norms[candidates:]
    return np.divide(dots, norm_product, out=dots, where=norm_product != 0)
