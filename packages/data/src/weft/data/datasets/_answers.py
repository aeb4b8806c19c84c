"""Soft targets from several annotators' answers."""

from collections import Counter
from collections.abc import Sequence

MATCHES_FOR_FULL_SCORE = 3


def leave_one_out(answers: Sequence[str]) -> dict[str, float]:
    """Return the score that each given answer would get against the annotators.

    Formula: mean over annotators i of min(1, matches among the others / 3).

    Args:
        answers: One answer per annotator, ten in VQA v2; a single answer scores 1.

    Source: the VQA evaluation (Antol et al., ICCV 2015), on the answers as written.

    >>> leave_one_out(["red"] * 2 + ["blue"] + ["green"] * 7)
    {'red': 0.6, 'blue': 0.3, 'green': 1.0}
    """
    total = len(answers)
    if total == 1:
        return {answers[0]: 1.0}
    scores = {}
    for answer, count in Counter(answers).items():
        own = min(1.0, (count - 1) / MATCHES_FOR_FULL_SCORE)
        other = min(1.0, count / MATCHES_FOR_FULL_SCORE)
        scores[answer] = round((count * own + (total - count) * other) / total, 10)
    return scores
