"""VQA accuracy: agreement with ten people, each left out in turn; the official one, and that of VL-Adapter."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from weft.eval.errors import ScoreInputError, ScoreTypeError, shown
from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, credit_report
from weft.eval.metrics.vqa_normalise import normalise, process_punctuation, strip_whitespace

OFFICIAL = "official-vqa-2021"
LMMS_EVAL = "lmms-eval"
_OFFICIAL_DIGITS = 2
_GROUP_AXES = ("answer_type", "question_type")


def vqa_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[str] | Mapping[str, Any]],
    *,
    variant: str = OFFICIAL,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score open-ended answers as the VQA challenge does.

    For each human answer, count how many of the *others* equal the prediction; that answer contributes
    `min(1, count / 3)`, and the sample scores the mean. The clean-up of answers happens only where the human
    answers are not all the same string, which is why "Yes." against ten times "yes" scores nothing.

    Args:
        predictions: Question id to answer.
        references: Question id to the human answers (ten of them as a rule), or to an official annotation:
            a mapping with `answers` (text, or mappings with `answer`) and optionally `answer_type` and
            `question_type`, which become groups.
        variant: `"official-vqa-2021"` (the challenge's script), or `"lmms-eval"`, which also cleans the
            prediction when the human answers agree.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Further axes to average over: axis to question id to group name.

    Returns:
        Report with `accuracy` in percent; corpus and group means are rounded to two decimals as the official
        script rounds them, per-sample scores are whole.

    Raises:
        ScoreInputError: Ids do not match, a reference holds fewer than two answers, or the variant is
            unknown.
        ScoreTypeError: A prediction or a human answer is not text.

    Source:
        Goyal et al. 2017 and GT-Vision-Lab/VQA, vqaEval.py at a013f004. Difference: people are left out by
        position, where the script leaves out every annotation equal in answer, confidence and answer id; the
        two agree on every file whose answer ids are distinct.

    Example:
        >>> vqa_accuracy({1: "two"}, {1: ["2"] * 5 + ["two"] * 5}).value
        100.0
    """
    score_one = _VARIANTS.get(variant)
    if score_one is None:
        raise ScoreInputError(
            f"`variant` must be one of {', '.join(sorted(_VARIANTS))}, but is {variant!r}. Use {OFFICIAL!r}."
        )
    return _agreement("vqa_accuracy", variant, score_one, predictions, references, subset, groups)


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
    name, variant = "vl_adapter_vqa_accuracy", "vl-adapter"
    return _agreement(name, variant, _vl_adapter, predictions, references, subset, groups)


def _agreement(
    metric: str,
    variant: str,
    score_one: Callable[[str, Sequence[str]], float],
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[str] | Mapping[str, Any]],
    subset: bool,
    groups: Mapping[str, Mapping[Any, str]] | None,
) -> ScoreReport:
    """Score every prediction against its human answers by one rule, which gives a number from 0 to 1."""
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    agreement = {key: score_one(predictions[key], _human_answers(key, references[key])) for key in paired.ids}
    axes = {**_annotated_groups(paired.ids, references), **(groups or {})}
    return credit_report(metric, variant, paired, agreement, axes, digits=_OFFICIAL_DIGITS)


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Agreement of one cleaned prediction with at least two cleaned human answers, from 0 to 1."""
    matches = [answer == prediction for answer in answers]
    count = sum(matches)
    if count == 0:
        return 0.0
    # Summed in the order of the answers: the official script's last bit depends on it.
    return sum(min(1.0, (count - match) / 3) for match in matches) / len(answers)


def _official(prediction: str, answers: Sequence[str]) -> float:
    prediction, answers = strip_whitespace(prediction), [strip_whitespace(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = normalise(prediction), [normalise(answer) for answer in answers]
    return _leave_one_out(prediction, answers)


def _lmms_eval(prediction: str, answers: Sequence[str]) -> float:
    prediction = prediction.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _official(normalise(strip_whitespace(prediction)), answers)


def _vl_adapter(prediction: str, answers: Sequence[str]) -> float:
    if len(set(answers)) > 1:
        answers = [process_punctuation(answer) for answer in answers]
    return _leave_one_out(normalise(strip_whitespace(prediction)), answers)


_VARIANTS: dict[str, Callable[[str, Sequence[str]], float]] = {OFFICIAL: _official, LMMS_EVAL: _lmms_eval}


def _human_answers(key: Hashable, reference: Sequence[str] | Mapping[str, Any]) -> list[str]:
    given: Any = reference.get("answers") if isinstance(reference, Mapping) else reference
    listed = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
    answers: list[Any] = [None]
    if listed:
        answers = [item.get("answer") if isinstance(item, Mapping) else item for item in given]
    if not all(isinstance(answer, str) for answer in answers):
        raise ScoreTypeError(
            f"Each value of `references` must be a list of answers (text), but that of {key!r} is {given!r}. "
            "Give the human answers one by one."
        )
    if len(answers) < 2:
        raise ScoreInputError(
            f"Each value of `references` must hold at least 2 human answers, but that of {key!r} holds "
            f"{len(answers)}: {shown(list(answers))}. With one true answer use `exact_accuracy`, the metric `exact` of "
            "recipes."
        )
    return answers


def _annotated_groups(ids: list[Hashable], references: Mapping[Any, Any]) -> dict[str, dict[Hashable, str]]:
    annotated = {key: references[key] for key in ids if isinstance(references[key], Mapping)}
    found = {axis: {key: own[axis] for key, own in annotated.items() if axis in own} for axis in _GROUP_AXES}
    return {axis: members for axis, members in found.items() if members}


@register_metric("vqa", "image_qa", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    return vqa_accuracy(predictions, {record.id: record.references() for record in records}, groups=groups)


@register_metric("vqa_vl_adapter", "image_qa", headlines=("accuracy",))
def _of_records_as_vl_adapter(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: record.references() for record in records}
    return vl_adapter_vqa_accuracy(predictions, references, groups=groups)
