"""Scores of predictions against records, by the official metric that a task names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weft.core.registry import Registry
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


@dataclass(frozen=True)
class Metric:
    """A metric that a task may name.

    Attributes:
        scorer: Predictions, records and groups of records to their scores.
        types: Types of the records it scores; empty for any.
    """

    scorer: Scorer
    types: tuple[str, ...] = ()


METRICS: Registry[Metric] = Registry("`metric`", ScoreInputError, group="weft.metrics")
"""Metrics by the names that a task may take; an entry point of the group `weft.metrics` names a `Metric`."""


def register_metric(name: str, *types: str) -> Callable[[Scorer], Scorer]:
    """Make a function known as a metric; a decorator.

    Args:
        name: What tasks call it.
        types: Types of the records it scores; none for any.

    Raises:
        ScoreInputError: If another metric has the name.
    """

    def register(scorer: Scorer) -> Scorer:
        METRICS.register(name, Metric(scorer, types))
        return scorer

    return register


@register_metric("vqa", "image_qa")
def _vqa(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return vqa_accuracy(predictions, {r.id: list(r.answers) for r in records}, groups=groups)


@register_metric("vqa_vl_adapter", "image_qa")
def _vqa_vl_adapter(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return vl_adapter_vqa_accuracy(predictions, {r.id: list(r.answers) for r in records}, groups=groups)


@register_metric("gqa", "image_qa")
def _gqa(predictions: dict[Any, str], records: Sequence[ImageQA], groups: Groups) -> ScoreReport:
    return gqa_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


@register_metric("exact", "image_qa", "video_qa")
def _exact(predictions: dict[Any, str], records: Sequence[ImageQA | VideoQA], groups: Groups) -> ScoreReport:
    several = [r for r in records if len(set(map(plain_answer, r.answers))) > 1]
    if several:
        raise ScoreInputError(
            f"Each record must have one answer for the metric 'exact', but {several[0].id!r} has "
            f"{shown(list(several[0].answers))}. Take 'vqa' where several people answered."
        )
    return exact_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


@register_metric("nlvr", "pair_bool")
def _nlvr(predictions: dict[Any, str], records: Sequence[PairBool], groups: Groups) -> ScoreReport:
    return _judgements(nlvr_accuracy, predictions, records, groups)


@register_metric("nlvr2", "pair_bool")
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


@register_metric("caption", "caption")
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


@register_metric("multiple_choice", "video_mc")
def _multiple_choice(predictions: dict[Any, str], records: Sequence[VideoMC], groups: Groups) -> ScoreReport:
    """An answer counts if it is exactly `a` and the option's number; anything else is wrong."""
    right = {r.id: r.answer or 0 for r in records}
    chosen = {r.id: right[r.id] if predictions[r.id] == f"a{right[r.id]}" else -1 for r in records}
    return multiple_choice_accuracy(chosen, right, groups=groups)


@register_metric("open_ended", "video_qa")
def _open_ended(predictions: dict[Any, str], records: Sequence[VideoQA], groups: Groups) -> ScoreReport:
    return open_ended_accuracy(predictions, {r.id: r.answers[0] for r in records}, groups=groups)


@register_metric("retrieval", "retrieval")
def _retrieval(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    # Features are tensors before they are arrays: torch is not loaded for the names of metrics.
    from weft.eval.evaluate.retrieve import retrieval_scores

    return retrieval_scores(predictions, records, groups)


def fits(metric: str, record: Record) -> bool:
    """Tell whether a metric scores records of this type; one that names no types scores all."""
    kinds = tuple(map(record_class, METRICS[metric].types)) if metric in METRICS else ()
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
            f"`records` must be of type {' or '.join(map(repr, METRICS[metric].types))} for the metric {metric!r}, but "
            f"{other.id!r} is of type {other.record_type!r}. Choose another metric."
        )
    report = METRICS[metric].scorer(predictions, records, record_groups(records))
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
