"""VQA accuracy as VL-T5, VL-Adapter and what builds on their code print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport
from weft.eval.metrics.vqa import agreement_report, leave_one_out
from weft.eval.metrics.vqa_normalise import normalise, process_punctuation, strip_whitespace


def vl_adapter_vqa_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[str] | Mapping[str, Any]],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score open-ended answers as the evaluator of VL-Adapter does; it is not the official one.

    It counts agreement as `vqa_accuracy` does, but cleans every prediction whole, also where people agree, and of the
    human answers the punctuation alone, where they do not: "the dogs" is a wrong answer to ten times "the dogs".

    Args:
        predictions: Question id to answer.
        references: Question id to human answers or annotation; see `vqa_accuracy`.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Further axes to average over: axis to question id to group name.

    Returns:
        Report with `accuracy` in percent, rounded as theirs.

    Raises:
        ScoreInputError: Ids do not match, or a reference holds fewer than two answers.
        ScoreTypeError: A prediction or a human answer is not text.

    Source:
        `VQAEvaluator.evaluate_raw` of VL-T5 (Cho et al. 2021) and VL-Adapter (Sung et al. 2022). It cleans the human
        answers in place, so that scoring twice in one process may clean them twice; here every scoring is the first.

    Example:
        >>> vl_adapter_vqa_accuracy({1: "Yes."}, {1: ["yes"] * 10}).value
        100.0
    """
    return agreement_report(
        "vl_adapter_vqa_accuracy",
        "vl-adapter",
        _agreement,
        predictions,
        references,
        subset=subset,
        groups=groups,
    )


def _agreement(prediction: str, answers: Sequence[str]) -> float:
    if len(set(answers)) > 1:
        answers = [process_punctuation(answer) for answer in answers]
    return leave_one_out(normalise(strip_whitespace(prediction)), answers)


@register_metric("vqa_vl_adapter", "image_qa", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: record.references() for record in records}
    return vl_adapter_vqa_accuracy(predictions, references, groups=groups)
