"""The n-grams of many tokenised sentences as arrays, shared by BLEU and CIDEr-D."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4

Ngram = tuple[str, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Order:
    """All n-grams of one order, one entry per sentence and distinct n-gram.

    Entries are sentence by sentence, in order of first occurrence: the last bit of CIDEr-D sums depends on
    it.

    Attributes:
        sentence: Shape `(entries,)`, number of the sentence.
        ngram: Shape `(entries,)`, number of the n-gram, from 0.
        count: Shape `(entries,)`, how often it occurs in the sentence.
        examples: Shape `(distinct n-grams,)`, a place in the text where the n-gram begins.
    """

    sentence: Array
    ngram: Array
    count: Array
    examples: Array

    @property
    def distinct(self) -> int:
        """Number of n-grams, at least 1."""
        return max(1, len(self.examples))

    def keys(self, image: Array) -> Array:
        """Shape `(entries,)`, equal for the same n-gram in sentences of the same image; `image` is of each sentence."""
        return image[self.sentence] * self.distinct + self.ngram


class NgramTable:
    """Counts of the 1- to 4-grams of sentences.

    Args:
        texts: Tokens joined by single spaces, one text per sentence.

    Attributes:
        lengths: Shape `(sentences,)`, tokens per sentence.
        orders: The four orders, words first.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        sentences = [text.split() for text in texts]
        self.lengths: Array = np.array([len(words) for words in sentences], dtype=np.int64)
        self._words = [word for words in sentences for word in words]
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        words: Array = np.array([numbers[word] for word in self._words], dtype=np.int64)
        sentence = np.repeat(np.arange(len(sentences)), self.lengths)
        ends = np.cumsum(self.lengths)[sentence] if len(sentence) else sentence
        remaining = ends - np.arange(len(words))
        codes, places = words, np.arange(len(words))
        orders = []
        for order in range(MAX_ORDER):
            if order:
                inside = remaining[places] > order
                places = places[inside]
                # A longer n-gram is a shorter one and the word after it.
                codes = codes[inside] * max(1, len(numbers)) + words[places + order]
            _, examples, codes = np.unique(codes, return_index=True, return_inverse=True)
            orders.append(_count(sentence[places], codes, places[examples]))
        self.orders = tuple(orders)

    def ngram(self, order: int, number: int) -> Ngram:
        """The words of an n-gram of the given order (0 for single words)."""
        start = int(self.orders[order].examples[number])
        return tuple(self._words[start : start + order + 1])


def _count(sentence: Array, codes: Array, examples: Array) -> Order:
    distinct = max(1, len(examples))
    pairs, first, counts = np.unique(sentence * distinct + codes, return_index=True, return_counts=True)
    by_occurrence = np.argsort(first)
    pairs = pairs[by_occurrence]
    return Order(pairs // distinct, pairs % distinct, counts[by_occurrence], examples)
