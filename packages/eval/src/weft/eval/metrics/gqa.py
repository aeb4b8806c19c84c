"""GQA: exact-match accuracy, consistency, validity, plausibility and distribution."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import DISTANCE, PERCENT, ScoreReport, credit_report, mean_of

Question = Mapping[str, Any]
Choices = Mapping[Any, Mapping[str, list[str]]]
Consistency = Literal["off", "all", "known"]

# The official script compares the answers of "Common" questions ("what do both have in common?") with these.
_COMMON_ANSWERS = ("color", "material", "shape")
_NOT_A_STEP = ("exist", "query: name", "choose name")


def gqa_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Question],
    *,
    choices: Choices | None = None,
    consistency: Consistency = "off",
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score compositional question answering as the GQA script does.

    Answers are compared as they are: "Yes" is not "yes". All means run over balanced questions only.

    Args:
        predictions: Question id to answer.
        references: Question id to the answer, or to an entry of an official question file: a mapping with
            `answer` and, where present, `isBalanced` (default true), `types`, `groups`, `semantic`,
            `question` and `entailed`.
        choices: Question id to `{"valid": [...], "plausible": [...]}`, the official choices file. Without it
            validity and plausibility are `None`.
        consistency: `"off"`; `"all"`, which needs questions and predictions for every entailed question, as
            the official script does; or `"known"`, which uses the entailed questions that `references` hold
            and says so in a note.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Further axes to average over: axis to question id to group name.

    Returns:
        Report with `accuracy`, `binary`, `open`, `consistency`, `validity`, `plausibility` in percent and
        `distribution` (chi-square between gold and predicted answers per question group, divided by 100,
        lower is better); `None` where the references do not hold what a score needs. Group axes:
        `structural`, `semantic`, `steps`, `words`.

    Raises:
        ScoreInputError: Ids do not match, no question is balanced, an entailed question or a choice is absent.
        ScoreTypeError: A prediction is not text.

    Source:
        Hudson and Manning 2019; the official `eval.py` in the port of MILVLG/openvqa. `grounding` needs
        attention maps and is not computed.

    Example:
        >>> gqa_accuracy({"1": "yes", "2": "Red"}, {"1": "yes", "2": "red"}).value
        50.0
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    questions = {key: _question(references[key]) for key in paired.ids}
    correct = {key: float(predictions[key] == questions[key]["answer"]) for key in paired.ids}
    balanced = _balanced(questions)
    scored = {key: correct[key] for key in balanced}
    scores = _scores(scored, predictions, balanced, choices)
    scores["consistency"], notes = _consistency(balanced, correct, consistency)
    axes = {**_question_axes(balanced), **(groups or {})}
    report = credit_report("gqa_accuracy", "official", paired, scored, axes, notes=notes)
    return replace(
        report,
        scores=scores,
        units=dict.fromkeys(scores, PERCENT) | {"distribution": DISTANCE},
        reasons={name: _reason(name, consistency) for name, value in scores.items() if value is None},
    )


def _balanced(questions: Mapping[Any, Question]) -> dict[Any, Question]:
    """The questions that means run over."""
    found = {key: question for key, question in questions.items() if question.get("isBalanced", True)}
    if not found:
        raise ScoreInputError(
            f"`references` must hold at least one balanced question, but all {len(questions)} have "
            "`isBalanced` false. Score the balanced file of this split."
        )
    return found


def _scores(
    scored: Mapping[Any, float],
    predictions: Mapping[Any, str],
    balanced: Mapping[Any, Question],
    choices: Choices | None,
) -> dict[str, float | None]:
    """All scores but consistency."""
    structural = {
        key: question["types"]["structural"] for key, question in balanced.items() if "types" in question
    }
    return {
        "accuracy": _percent(list(scored.values())),
        "binary": _percent([scored[key] for key, kind in structural.items() if kind != "query"]),
        "open": _percent([scored[key] for key, kind in structural.items() if kind == "query"]),
        "consistency": None,
        "validity": _membership("valid", predictions, balanced, choices),
        "plausibility": _membership("plausible", predictions, balanced, choices),
        "distribution": _distribution(predictions, balanced),
    }


def _reason(score: str, consistency: Consistency) -> str:
    """Why a score could not be computed, and what would give it."""
    if score in ("validity", "plausibility"):
        return "it needs `choices`, the official choices file"
    if score == "consistency":
        if consistency == "off":
            return "switched off; `consistency` 'known' or 'all' computes it from entailed questions"
        return "no question with a right answer has `entailed` questions among the references"
    if score == "distribution":
        return "no question has `groups`"
    return f"no question is {score}"


def _question(reference: str | Question) -> Question:
    if isinstance(reference, str):
        return {"answer": reference}
    if "answer" not in reference:
        raise ScoreInputError(
            f"Each value of `references` must be an answer or hold `answer`, but one holds only "
            f"{shown(list(reference))}. Use a question file with answers."
        )
    return reference


def _percent(values: list[float]) -> float | None:
    # The official script divides before it scales.
    return sum(values) / len(values) * 100 if values else None


def _membership(
    kind: str, predictions: Mapping[Any, str], balanced: Mapping[Any, Question], choices: Choices | None
) -> float | None:
    if choices is None:
        return None
    missing = [key for key in balanced if key not in choices]
    if missing:
        raise ScoreInputError(
            f"`choices` must hold every balanced question, but {len(missing)} are missing: {shown(missing)}. "
            "Use the choices file of the same split, or leave `choices` out."
        )
    hits = []
    for key, question in balanced.items():
        common = "Common" in question.get("types", {}).get("detailed", "")
        hits.append(float(predictions[key] in (_COMMON_ANSWERS if common else choices[key][kind])))
    return _percent(hits)


def _consistency(
    balanced: Mapping[Any, Question], correct: Mapping[Any, float], mode: str
) -> tuple[float | None, tuple[str, ...]]:
    """Mean accuracy of entailed questions, and a note if some are left out; nothing where switched off."""
    if mode == "off":
        return None, ()
    means, left_out = [], 0
    for key, question in balanced.items():
        if not correct[key]:
            continue
        entailed = [other for other in question.get("entailed", ()) if other != key]
        known = [other for other in entailed if other in correct]
        if mode == "all" and len(known) < len(entailed):
            absent = [other for other in entailed if other not in correct]
            raise ScoreInputError(
                f"`consistency='all'` needs every entailed question, but question {key!r} entails "
                f"{len(absent)} that have no reference or prediction: {shown(absent)}. "
                "Predict the file with all questions, or pass `consistency='known'`."
            )
        left_out += len(entailed) - len(known)
        if known:
            means.append(mean_of([correct[other] for other in known]))
    note = f"consistency leaves out {left_out} entailed questions that are not in the references"
    return _percent(means), (note,) if left_out else ()


def _distribution(predictions: Mapping[Any, str], balanced: Mapping[Any, Question]) -> float | None:
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    predicted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for key, question in balanced.items():
        group = question.get("groups", {}).get("global")
        if group is not None:
            gold[group][question["answer"]] += 1
            predicted[group][predictions[key]] += 1
    if not gold:
        return None
    weighted = 0.0
    for group, expected in gold.items():
        score = 0.0
        for answer, count in expected.items():
            score += (float(predicted[group][answer] - count) ** 2) / count
        weighted += score * expected.total()
    return weighted / sum(expected.total() for expected in gold.values()) / 100


def _question_axes(balanced: Mapping[Any, Question]) -> dict[str, dict[Hashable, str]]:
    axes: defaultdict[str, dict[Hashable, str]] = defaultdict(dict)
    for key, question in balanced.items():
        if "types" in question:
            axes["structural"][key] = question["types"]["structural"]
            axes["semantic"][key] = question["types"]["semantic"]
        if "semantic" in question:
            axes["steps"][key] = str(_steps(question["semantic"]))
        if "question" in question:
            axes["words"][key] = str(len(question["question"].split()))
    return axes


def _steps(program: list[Mapping[str, Any]]) -> int:
    """Number of reasoning steps: operations other than the last, asking one."""
    texts = [f"{step['operation']}: {step['argument']}" for step in program]
    return sum(not any(part in text for part in _NOT_A_STEP) for text in texts)


@register_metric("gqa", "image_qa", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: record.references()[0] for record in records}
    return gqa_accuracy(predictions, references, groups=groups)
