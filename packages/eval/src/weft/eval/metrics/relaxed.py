"""Relaxed accuracy, as ChartQA scores: numbers may be off by five per cent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.exact import one_answer
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, credit_report

TOLERANCE = 0.05
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


def relaxed_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Share of questions answered right, where a number counts that differs from the right one by at most 5 per cent.

    Arguments, result and errors are those of `exact_accuracy`.

    Source:
        Methani et al. 2020 (PlotQA) and Masry et al. 2022 (ChartQA), section 5.1; details as Pix2Struct's code has
        them: "12%" is 0.12, a right answer of zero is compared as text, text is compared without case. Blanks around an
        answer are left out here.

    Example:
        >>> relaxed_accuracy({1: "95", 2: "94", 3: "Red"}, {1: "100", 2: "100", 3: "red"}).scores["accuracy"]
        66.66666666666667
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    require_text(references, paired.ids, "references")
    right = {key: float(_near(predictions[key].strip(), references[key].strip())) for key in paired.ids}
    return credit_report("relaxed_accuracy", "numbers within 5 per cent", paired, right, groups)


def _near(prediction: str, reference: str) -> bool:
    said, wanted = _number(prediction), _number(reference)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= TOLERANCE
    return prediction.lower() == reference.lower()


def _number(text: str) -> float | None:
    digits = text.removesuffix("%").strip()
    if not _NUMBER.fullmatch(digits.lower()):
        return None
    return float(digits) / 100 if text.endswith("%") else float(digits)


@register_metric("relaxed", "image_qa", "conversation", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    return relaxed_accuracy(predictions, one_answer(records, "relaxed"), groups=groups)
