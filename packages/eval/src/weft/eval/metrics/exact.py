"""Accuracy on questions of one answer each."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, credit_report

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
    right = {
        key: float(plain_answer(predictions[key]) == plain_answer(references[key])) for key in paired.ids
    }
    return credit_report("exact_accuracy", VARIANT, paired, right, groups)


def plain_answer(answer: str) -> str:
    """An answer as it is compared: composed characters, case folded, single blanks between words, no final full stop.

    Articles, number words and other punctuation stay: "two" is not "2".

    >>> plain_answer("  A  Red HAT. ")
    'a red hat'
    """
    words = " ".join(unicodedata.normalize("NFC", answer).casefold().split())
    return words.removesuffix(".").rstrip()


def one_answer(records: Sequence[Any], metric: str) -> dict[Any, str]:
    """Record id to its right answer, where each has only one; messages name the `metric`.

    Raises:
        ScoreInputError: A record has several.
    """
    several = [record for record in records if len(set(map(plain_answer, record.references()))) > 1]
    if several:
        raise ScoreInputError(
            f"Each record must have one answer for the metric {metric!r}, but {several[0].id!r} has "
            f"{shown(list(several[0].references()))}. Take 'vqa' where several people answered."
        )
    return {record.id: record.references()[0] for record in records}


@register_metric("exact", "image_qa", "video_qa", "conversation", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    return exact_accuracy(predictions, one_answer(records, "exact"), groups=groups)
