"""CIDEr-D: consensus with the references, n-grams weighted by how rare they are among the references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from weft.eval.metrics.caption.ngrams import MAX_ORDER, Ngram, Sentence

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
    def of(cls, references: Sequence[Sequence[Sentence]]) -> DocumentFrequency:
        """Count over the references of the evaluated images, as the COCO evaluation does.

        Args:
            references: The reference sentences of each image.

        Returns:
            The document frequencies.
        """
        counts: Counter[Ngram] = Counter()
        for sentences in references:
            seen: set[Ngram] = set()
            for sentence in sentences:
                for ngrams in sentence.counts:
                    seen.update(ngrams)
            counts.update(seen)
        return cls(counts, len(references))


def cider_d(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    frequency: DocumentFrequency | None = None,
) -> list[float]:
    """CIDEr-D of every candidate.

    With one image every n-gram occurs in all images, every weight is 0 and so is the score; scores of subsets
    differ from those of the whole set, because rarity does.

    Args:
        candidates: One sentence per image.
        references: At least one sentence per image.
        frequency: Document frequencies; by default those of `references`.

    Returns:
        One score per image, from 0 to 10.

    Source:
        Vedantam et al. 2015, section on CIDEr-D, in the form of pycocoevalcap (sigma 6, clipping, length
        penalty over bigram counts). The order of every sum follows it, so that the last bit agrees.
    """
    weights = _Weights(frequency or DocumentFrequency.of(references))
    scores = []
    for candidate, sentences in zip(candidates, references, strict=True):
        vectors = [weights.vector(candidate, order) for order in range(MAX_ORDER)]
        norms = [weights.norm(candidate, order) for order in range(MAX_ORDER)]
        totals = [0.0] * MAX_ORDER
        for sentence in sentences:
            penalty = _length_penalty(_bigrams(candidate) - _bigrams(sentence))
            for order in range(MAX_ORDER):
                totals[order] += penalty * weights.similarity(vectors[order], norms[order], sentence, order)
        mean = (totals[0] + totals[1] + totals[2] + totals[3]) / MAX_ORDER
        scores.append(mean / len(sentences) * _SCALE)
    return scores


class _Weights:
    """Inverse document frequencies and the vectors made of them."""

    def __init__(self, frequency: DocumentFrequency) -> None:
        log_images = float(np.log(float(frequency.images)))
        self._unseen = log_images
        logs = {count: float(np.log(max(1.0, count))) for count in set(frequency.counts.values())}
        self._idf = {ngram: log_images - logs[count] for ngram, count in frequency.counts.items()}

    def vector(self, sentence: Sentence, order: int) -> dict[Ngram, float]:
        idf, unseen = self._idf, self._unseen
        return {ngram: count * idf.get(ngram, unseen) for ngram, count in sentence.counts[order].items()}

    def norm(self, sentence: Sentence, order: int) -> float:
        idf, unseen = self._idf, self._unseen
        total = 0.0
        for ngram, count in sentence.counts[order].items():
            total += (count * idf.get(ngram, unseen)) ** 2
        return math.sqrt(total)

    def similarity(self, vector: dict[Ngram, float], norm: float, sentence: Sentence, order: int) -> float:
        counts, idf, unseen = sentence.counts[order], self._idf, self._unseen
        total = 0.0
        for ngram, weight in vector.items():
            count = counts.get(ngram)
            if count is not None:
                other = count * idf.get(ngram, unseen)
                total += min(weight, other) * other
        other_norm = self.norm(sentence, order)
        if norm != 0 and other_norm != 0:
            total /= norm * other_norm
        return total


def _bigrams(sentence: Sentence) -> int:
    return max(0, sentence.length - 1)


@lru_cache(maxsize=4096)
def _length_penalty(difference: int) -> float:
    delta = float(difference)
    return float(math.e ** (-(delta**2) / (2 * _SIGMA**2)))
