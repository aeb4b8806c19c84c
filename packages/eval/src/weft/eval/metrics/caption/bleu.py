"""Corpus BLEU-1 to BLEU-4 against several references, as in the COCO caption evaluation."""

from __future__ import annotations

import math

import numpy as np

from weft.eval.metrics.caption.ngrams import MAX_ORDER, Array, NgramTable, Order

# Both constants decide digits: a corpus without any common 4-gram scores near 4e-5, not 0.
_TINY = 1e-15
_SMALL = 1e-9

STATISTICS = 2 + 2 * MAX_ORDER
"""Columns of `bleu_statistics`."""


def bleu_statistics(table: NgramTable, image: Array, candidates: int) -> Array:
    """Count what BLEU needs of every candidate.

    Args:
        table: The candidates' sentences, then all references.
        image: Shape `(sentences,)`, the image each sentence belongs to; candidate `i` is of image `i`.
        candidates: How many of the sentences are candidates.

    Returns:
        Integers of shape `(candidates, 10)`: tokens of the candidate, tokens of the reference closest in
        length (the shorter one on a tie), four counts of clipped common n-grams, four of the candidate's
        n-grams. Sums over images are the statistics of a corpus.

    Source:
        Papineni et al. 2002, in the form of pycocoevalcap with the closest reference length.
    """
    length = table.lengths[:candidates]
    result = np.zeros((candidates, STATISTICS), dtype=np.int64)
    result[:, 0] = length
    result[:, 1] = _closest(table.lengths[candidates:], image[candidates:], length)
    for order in range(MAX_ORDER):
        result[:, 2 + order] = _matches(table.orders[order], image, candidates)
        result[:, 2 + MAX_ORDER + order] = np.maximum(0, length - order)
    return result


def bleu_scores(statistics: Array) -> list[float]:
    """BLEU-1 to BLEU-4 from summed statistics.

    Args:
        statistics: Shape `(10,)`, a row of `bleu_statistics` or a sum of rows.

    Returns:
        Four fractions.
    """
    length, reference_length, *counts = statistics.tolist()
    product, scores = 1.0, []
    for order in range(MAX_ORDER):
        product *= (float(counts[order]) + _TINY) / (float(counts[MAX_ORDER + order]) + _SMALL)
        scores.append(product ** (1.0 / (order + 1)))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    if ratio < 1:
        scores = [score * math.exp(1 - 1 / ratio) for score in scores]
    return scores


def _closest(lengths: Array, image: Array, wanted: Array) -> Array:
    order = np.lexsort((lengths, np.abs(lengths - wanted[image]), image))
    _, first = np.unique(image[order], return_index=True)
    return lengths[order][first]


def _matches(order: Order, image: Array, candidates: int) -> Array:
    """Common n-grams of each candidate, clipped at the most that any one reference has."""
    keys = order.keys(image)
    mine = order.sentence < candidates
    theirs, place = np.unique(keys[~mine], return_inverse=True)
    most = np.zeros(len(theirs) + 1, dtype=np.int64)
    np.maximum.at(most, place, order.count[~mine])
    found = np.searchsorted(theirs, keys[mine])
    known = np.append(theirs, -1)[found] == keys[mine]
    clipped = np.where(known, np.minimum(order.count[mine], most[found]), 0)
    return np.bincount(order.sentence[mine], weights=clipped, minlength=candidates).astype(np.int64)
