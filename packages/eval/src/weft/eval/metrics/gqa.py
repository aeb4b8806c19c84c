"""GQA: exact-match accuracy, consistency, validity, plausibility and distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.credit import credit_report
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import DISTANCE, PERCENT, ScoreReport, mean_of

Question = Mapping[str, Any]
Consistency = Literal["off", "all", "known"]

# The official script compares the answers of "Common" questions ("what do both have in common?") with these.
_COMMON_ANSWERS = ("color", "material", "shape")
_LEFT_OUT = "consistency leaves out {} entailed questions that are not in the references"
_NOT_A_STEP = ("exist", "query: name", "choose name")


def gqa_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Question],
    *,
    choices: Mapping[Any, Mapping[str, list[str]]] | None = None,
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
    scored = {key: correct[key] for key in _balanced(questions)}
    scores = _scores(scored, predictions, questions, choices)
    scores["consistency"], left_out = _consistency(list(scored), correct, questions, consistency)
    axes = {**_question_axes(list(scored), questions), **(groups or {})}
    notes = (_LEFT_OUT.format(left_out),) if left_out else ()
    report = credit_report("gqa_accuracy", "official", paired, scored, axes, notes=notes)
    return replace(
        report,
        scores=scores,
        units=dict.fromkeys(scores, PERCENT) | {"distribution": DISTANCE},
        reasons={key: _reason(key, consistency, choices) for key, value in scores.items() if value is None},
    )


def _balanced(questions: Mapping[Any, Question]) -> list[Any]:
    """Ids of the questions that means run over."""
    found = [key for key, question in questions.items() if question.get("isBalanced", True)]
    if not found:
        raise ScoreInputError(
            f"`references` must hold at least one balanced question, but all {len(questions)} have "
            "`isBalanced` false. Score the balanced file of this split."
        )
    return found


def _scores(
    scored: Mapping[Any, float],
    predictions: Mapping[Any, str],
    questions: Mapping[Any, Question],
    choices: Mapping[Any, Mapping[str, list[str]]] | None,
) -> dict[str, float | None]:
    """All scores but consistency, over the balanced questions `scored`."""
    balanced = list(scored)
    structural = {
        key: question["types"]["structural"] for key, question in questions.items() if "types" in question
    }
    return {
        "accuracy": _percent(list(scored.values())),
        "binary": _percent([scored[key] for key in balanced if structural.get(key, "query") != "query"]),
        "open": _percent([scored[key] for key in balanced if structural.get(key) == "query"]),
        "consistency": None,
        "validity": _membership("valid", balanced, predictions, questions, choices),
        "plausibility": _membership("plausible", balanced, predictions, questions, choices),
        "distribution": _distribution(balanced, predictions, questions),
    }


def _reason(score: str, consistency: Consistency, choices: Any) -> str:
    """Why a score could not be computed, and what would give it."""
    if score in ("validity", "plausibility"):
        assert choices is None, "with choices they are always there"
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
    kind: str,
    balanced: list[Hashable],
    predictions: Mapping[Any, str],
    questions: Mapping[Any, Question],
    choices: Mapping[Any, Mapping[str, list[str]]] | None,
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
    for key in balanced:
        common = "Common" in questions[key].get("types", {}).get("detailed", "")
        hits.append(float(predictions[key] in (_COMMON_ANSWERS if common else choices[key][kind])))
    return _percent(hits)


def _consistency(
    balanced: list[Hashable],
    correct: Mapping[Any, float],
    questions: Mapping[Any, Question],
    mode: str,
) -> tuple[float | None, int]:
    """Mean accuracy of entailed questions, and how many are left out; nothing where switched off."""
    if mode == "off":
        return None, 0
    means, left_out = [], 0
    for key in balanced:
        entailed = [other for other in questions[key].get("entailed", ()) if other != key]
        if not correct[key] or not entailed:
            continue
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
    return _percent(means), left_out


def _distribution(
    balanced: list[Hashable], predictions: Mapping[Any, str], questions: Mapping[Any, Question]
) -> float | None:
    gold: dict[str, Counter[str]] = {}
    predicted: dict[str, Counter[str]] = {}
    for key in balanced:
        group = questions[key].get("groups", {}).get("global")
        if group is not None:
            gold.setdefault(group, Counter())[questions[key]["answer"]] += 1
            predicted.setdefault(group, Counter())[predictions[key]] += 1
    if not gold:
        return None
    weighted, total = 0.0, 0
    for group, expected in gold.items():
        score, size = 0.0, 0
        for answer, count in expected.items():
            score += (float(predicted[group][answer] - count) ** 2) / count
            size += count
        weighted += score * size
        total += size
    return weighted / total / 100


def _question_axes(
    balanced: list[Hashable], questions: Mapping[Any, Question]
) -> dict[str, dict[Hashable, str]]:
    axes: dict[str, dict[Hashable, str]] = {}
    for key in balanced:
        question = questions[key]
        if "types" in question:
            axes.setdefault("structural", {})[key] = question["types"]["structural"]
            axes.setdefault("semantic", {})[key] = question["types"]["semantic"]
        if "semantic" in question:
            axes.setdefault("steps", {})[key] = str(_steps(question["semantic"]))
        if "question" in question:
            axes.setdefault("words", {})[key] = str(len(question["question"].split()))
    return axes


def _steps(program: list[Mapping[str, Any]]) -> int:
    """Number of reasoning steps: operations other than the last, asking one."""
    texts = [f"{step['operation']}: {step['argument']}" for step in program]
    return sum(not any(part in text for part in _NOT_A_STEP) for text in texts)


@register_metric("gqa", "image_qa", headlines=("accuracy",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: record.references()[0] for record in records}
    return gqa_accuracy(predictions, references, groups=groups)
