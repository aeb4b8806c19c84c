"""A tokenised sentence with its n-gram counts, shared by BLEU and CIDEr-D."""

from __future__ import annotations

from collections import Counter

MAX_ORDER = 4

Ngram = tuple[str, ...]


class Sentence:
    """Words of one tokenised caption and how often each 1- to 4-gram occurs.

    Args:
        text: Tokens joined by single spaces.

    Attributes:
        words: The tokens.
        length: Their number.
        counts: One counter per order; n-grams stand in order of first occurrence, which decides the last bit
            of CIDEr-D sums.
    """

    __slots__ = ("counts", "length", "words")

    def __init__(self, text: str) -> None:
        words = text.split()
        self.words = words
        self.length = len(words)
        tails = [words[start:] for start in range(MAX_ORDER)]
        self.counts: list[Counter[Ngram]] = [
            Counter(zip(*tails[: order + 1], strict=False)) for order in range(MAX_ORDER)
        ]
