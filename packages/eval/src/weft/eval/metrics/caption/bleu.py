"""Corpus BLEU-1 to BLEU-4 against several references, as in the COCO caption evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from weft.eval.metrics.caption.ngrams import MAX_ORDER, Sentence

# Both constants decide digits: a corpus without any common 4-gram scores near 4e-5, not 0.
_TINY = 1e-15
_SMALL = 1e-9


class BleuStatistics:
    """Counts of one candidate, or of a whole corpus after addition.

    Attributes:
        length: Candidate tokens.
        reference_length: Tokens of the reference closest in length (the shorter one on a tie).
        matches: Clipped common n-grams for each order.
        guesses: n-grams of the candidate for each order.
    """

    __slots__ = ("guesses", "length", "matches", "reference_length")

    def __init__(self) -> None:
        self.length = 0
        self.reference_length = 0
        self.matches = [0] * MAX_ORDER
        self.guesses = [0] * MAX_ORDER

    def add(self, other: BleuStatistics) -> None:
        """Add the counts of another candidate or corpus."""
        self.length += other.length
        self.reference_length += other.reference_length
        for order in range(MAX_ORDER):
            self.matches[order] += other.matches[order]
            self.guesses[order] += other.guesses[order]

    def scores(self) -> list[float]:
        """BLEU-1 to BLEU-4 of what was counted, each a fraction."""
        product, scores = 1.0, []
        for order in range(MAX_ORDER):
            product *= (float(self.matches[order]) + _TINY) / (float(self.guesses[order]) + _SMALL)
            scores.append(product ** (1.0 / (order + 1)))
        ratio = (self.length + _TINY) / (self.reference_length + _SMALL)
        if ratio < 1:
            scores = [score * math.exp(1 - 1 / ratio) for score in scores]
        return scores


def bleu_statistics(candidate: Sentence, references: Sequence[Sentence]) -> BleuStatistics:
    """Count what BLEU needs of one candidate.

    Args:
        candidate: The tokenised candidate.
        references: At least one tokenised reference.

    Returns:
        The counts; adding those of all candidates gives those of the corpus.

    Source:
        Papineni et al. 2002, in the form of pycocoevalcap with the closest reference length.
    """
    statistics = BleuStatistics()
    statistics.length = candidate.length
    statistics.reference_length = min(
        (abs(reference.length - candidate.length), reference.length) for reference in references
    )[1]
    for order in range(MAX_ORDER):
        statistics.guesses[order] = max(0, candidate.length - order)
        counts = [reference.counts[order] for reference in references]
        matched = 0
        for ngram, count in candidate.counts[order].items():
            ceiling = 0
            for reference_counts in counts:
                available = reference_counts.get(ngram, 0)
                if available > ceiling:
                    ceiling = available
            matched += count if count < ceiling else ceiling
        statistics.matches[order] = matched
    return statistics
