"""ROUGE-L of the COCO caption evaluation: longest common subsequence, best precision and best recall."""

from __future__ import annotations

from collections.abc import Sequence

_BETA_SQUARED = 1.2**2


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L of one candidate.

    Args:
        candidate: Tokens joined by single spaces.
        references: At least one reference, in the same form.

    Returns:
        A fraction. The best precision and the best recall may come from different references.

    Source:
        Lin 2004 in the form of pycocoevalcap: texts are split at every space, so an empty text is one empty
        word.
    """
    words = candidate.split(" ")
    positions = _positions(words)
    precision = recall = 0.0
    for reference in references:
        reference_words = reference.split(" ")
        common = _common_length(positions, len(words), reference_words)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(reference_words))
    if precision == 0 or recall == 0:
        return 0.0
    return ((1 + _BETA_SQUARED) * precision * recall) / float(recall + _BETA_SQUARED * precision)


def _positions(words: Sequence[str]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for place, word in enumerate(words):
        positions[word] = positions.get(word, 0) | (1 << place)
    return positions


def _common_length(positions: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Length of the longest common subsequence, with one bit per word of the first text (Hyyrö 2004)."""
    full = (1 << length) - 1
    unmatched = full
    for word in other:
        match = positions.get(word)
        if match is not None:
            step = unmatched & match
            unmatched = ((unmatched + step) | (unmatched - step)) & full
    return length - unmatched.bit_count()
