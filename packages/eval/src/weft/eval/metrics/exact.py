"""Accuracy on questions of one answer each."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Mapping
from typing import Any

from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.report import PERCENT, ScoreReport, group_means, mean_of

VARIANT = "case, white space and a final full stop aside"


def exact_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Share of questions whose one answer is given; see `plain_answer` for what counts as the same.

    Args:
        predictions: Question id to answer.
        references: Question id to the right answer.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to question id to group name.

    Returns:
        Report with `accuracy` in percent.

    Raises:
        ScoreInputError: Ids do not match.
        ScoreTypeError: An answer is not text.

    Example:
        >>> exact_accuracy({1: "Red. ", 2: "two"}, {1: "red", 2: "2"}).value
        50.0
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    require_text(references, paired.ids, "references")
    right: dict[Hashable, float] = {
        key: float(plain_answer(predictions[key]) == plain_answer(references[key])) for key in paired.ids
    }
    return ScoreReport(
        metric="exact_accuracy",
        variant=VARIANT,
        headline="accuracy",
        scores={"accuracy": mean_of(right.values(), 100)},
        units={"accuracy": PERCENT},
        n=len(right),
        groups=group_means(groups or {}, right, scale=100),
        per_sample={key: 100 * value for key, value in right.items()},
        missing=paired.missing,
        extra=paired.extra,
    )


def plain_answer(answer: str) -> str:
    """An answer as it is compared: composed characters, case folded, single blanks between words, no final full stop.

    Articles, number words and other punctuation stay: "two" is not "2".

    >>> plain_answer("  A  Red HAT. ")
    'a red hat'
    """
    words = " ".join(unicodedata.normalize("NFC", answer).casefold().split())
    return words.removesuffix(".").rstrip()
