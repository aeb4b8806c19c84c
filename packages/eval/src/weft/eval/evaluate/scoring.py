"""Scores of predictions against records, by the official metric that a task names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from weft.data import Caption, ImageQA, PairBool, Record, VideoMC, VideoQA, record_class
from weft.eval.errors import ScoreInputError, ScoreTypeError, shown
from weft.eval.metrics import (
    ScoreReport,
    caption_scores,
    exact_accuracy,
    gqa_accuracy,
    multiple_choice_accuracy,
    nlvr2_accuracy,
    nlvr_accuracy,
    open_ended_accuracy,
    vl_adapter_vqa_accuracy,
    vqa_accuracy,
)
from weft.eval.metrics.exact import plain_answer
from weft.eval.metrics.report import FRACTION, group_means

if TYPE_CHECKING:
    from weft.eval.evaluate.matches import Matches

Groups = dict[str, dict[Any, str]]
Scorer = Callable[[Any, Sequence[Any], Groups], ScoreReport]


def _vqa(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return vqa_accuracy(predictions, {r.id: list(r.answers) for r in records}, groups=groups)


def _vqa_vl_adapter(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return vl_adapter_vqa_accuracy(predictions, {r.id: list(r.answers) for r in records}, groups=groups)


def _gqa(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return gqa_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


def _exact(predictions: dict[Any, str], records: Sequence[ImageQA | VideoQA], groups: Groups) -> ScoreReport:
    several = [r for r in records if len(set(map(plain_answer, r.answers))) > 1]
    if several:
        raise ScoreInputError(
            f"Each record must have one answer for the metric 'exact', but {several[0].id!r} has "
            f"{shown(list(several[0].answers))}. Take 'vqa' where several people answered."
        )
    return exact_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


def _nlvr(predictions: dict[Any, str], records: Sequence[PairBool], groups: Groups) -> ScoreReport:
    return _judgements(nlvr_accuracy, predictions, records, groups)


def _nlvr2(predictions: dict[Any, str], records: Sequence[PairBool], groups: Groups) -> ScoreReport:
    return _judgements(nlvr2_accuracy, predictions, records, groups)


def _judgements(
    metric: Callable[..., ScoreReport],
    predictions: dict[Any, str],
    records: Sequence[PairBool],
    groups: Groups,
) -> ScoreReport:
    sentences = {r.id: r.group_id for r in records}
    return metric(predictions, {r.id: bool(r.label) for r in records}, sentences=sentences, groups=groups)


def _caption(predictions: dict[Any, str], records: Sequence[Caption], groups: Groups) -> ScoreReport:
    """The official scores, and `exact`: the share of captions that are a reference, word for word."""
    report = caption_scores(predictions, {r.id: list(r.captions) for r in records}, groups=groups)
    exact: dict[Any, float] = {
        r.id: float(_words(predictions[r.id]) in map(_words, r.captions)) for r in records
    }
    return replace(
        report,
        scores={**report.scores, "exact": sum(exact.values()) / len(exact)},
        units={**report.units, "exact": FRACTION},
        groups={
            **report.groups,
            **{f"{axis}: exact": means for axis, means in group_means(groups, exact).items()},
        },
    )


def _words(text: str) -> list[str]:
    return text.lower().split()


def _multiple_choice(predictions: dict[Any, str], records: Sequence[VideoMC], groups: Groups) -> ScoreReport:
    """An answer counts if it is exactly `a` and the option's number; anything else is wrong."""
    right = {r.id: r.answer or 0 for r in records}
    chosen = {r.id: right[r.id] if predictions[r.id] == f"a{right[r.id]}" else -1 for r in records}
    return multiple_choice_accuracy(chosen, right, groups=groups)


def _open_ended(predictions: dict[Any, str], records: Sequence[VideoQA], groups: Groups) -> ScoreReport:
    return open_ended_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


def _retrieval(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    # Features are tensors before they are arrays: torch is not loaded for the names of metrics.
    from weft.eval.evaluate.retrieve import retrieval_scores

    return retrieval_scores(predictions, records, groups)


METRICS: Mapping[str, Scorer] = {
    "caption": _caption,
    "exact": _exact,
    "gqa": _gqa,
    "multiple_choice": _multiple_choice,
    "nlvr": _nlvr,
    "nlvr2": _nlvr2,
    "open_ended": _open_ended,
    "retrieval": _retrieval,
    "vqa": _vqa,
    "vqa_vl_adapter": _vqa_vl_adapter,
}
"""Metric names that a task may take."""


SCORED_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "caption": ("caption",),
        "exact": ("image_qa", "video_qa"),
        "gqa": ("image_qa",),
        "multiple_choice": ("video_mc",),
        "nlvr": ("pair_bool",),
        "nlvr2": ("pair_bool",),
        "open_ended": ("video_qa",),
        "retrieval": ("retrieval",),
        "vqa": ("image_qa",),
        "vqa_vl_adapter": ("image_qa",),
    }
)
"""Name of a metric to the types of records it scores."""


def fits(metric: str, record: Record) -> bool:
    """Tell whether a metric scores records of this type; one that names no types scores all."""
    kinds = tuple(map(record_class, SCORED_TYPES.get(metric, ())))
    return isinstance(record, kinds) or not kinds


def score(
    metric: str,
    predictions: Mapping[str, str] | Matches,
    records: Sequence[Record],
    *,
    headline: str | None = None,
) -> ScoreReport:
    """Score predictions.

    Args:
        metric: A name of `METRICS`.
        predictions: Record id to answer, for every record; for retrieval the features of both sides.
        records: The records, with their answers.
        headline: Entry of the report's scores to show first, instead of the metric's own.

    Returns:
        The report, with groups by question type, answer type and novelty where the records tell them.

    Raises:
        ScoreInputError: If the metric or the headline is unknown, or the answers are hidden.
        ScoreTypeError: If a record is of another type than the metric scores.
    """
    if metric not in METRICS:
        raise ScoreInputError(f"`metric` must be one of {', '.join(METRICS)}, but is {metric!r}.")
    hidden = [r.id for r in records if not reference(r)]
    if hidden:
        raise ScoreInputError(
            f"`records` must hold the answers to be scored, but {len(hidden)} have none, such as {hidden[0]!r}. "
            "Score another split, or write the predictions in the benchmark's submission format."
        )
    other = next((r for r in records if not fits(metric, r)), None)
    if other is not None:
        raise ScoreTypeError(
            f"`records` must be of type {' or '.join(map(repr, SCORED_TYPES[metric]))} for the metric {metric!r}, but "
            f"{other.id!r} is of type {other.record_type!r}. Choose another metric."
        )
    report = METRICS[metric](predictions, records, record_groups(records))
    if headline is None:
        return report
    if headline not in report.scores:
        raise ScoreInputError(f"`headline` must be one of {', '.join(report.scores)}, but is {headline!r}.")
    return replace(report, headline=headline)


def reference(record: Record) -> str:
    """The first right answer of a record, or an empty text if it is hidden."""
    return next(iter(record.references()), "")


def record_groups(records: Sequence[Record]) -> Groups:
    """Axis to record id to group, for the axes that every record tells: question type, novelty, skin tone."""
    axes: Groups = {}
    for record in records:
        for axis, group in record.groups().items():
            axes.setdefault(axis, {})[record.id] = group
    return {axis: members for axis, members in axes.items() if len(members) == len(records)}


def majority(train: Sequence[Record], test: Sequence[Record]) -> dict[str, str]:
    """Answer everything with the most frequent training answer: what any model must beat."""
    answer = Counter(map(reference, train)).most_common(1)[0][0]
    return {record.id: answer for record in test}


def blind_majority(train: Sequence[Record], test: Sequence[Record]) -> dict[str, str]:
    """Answer with the most frequent training answer of the same template: what language alone can do.

    The template is `extra["template"]`, or the question type, or the question itself.
    """
    by_template: dict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        by_template[_template(record)][reference(record)] += 1
    fallback = majority(train, test)
    return {
        record.id: by_template[_template(record)].most_common(1)[0][0]
        if _template(record) in by_template
        else fallback[record.id]
        for record in test
    }


def _template(record: Record) -> str:
    for text in (
        record.extra.get("template"),
        getattr(record, "question_type", ""),
        getattr(record, "question", ""),
    ):
        if text:
            return str(text)
    return ""
