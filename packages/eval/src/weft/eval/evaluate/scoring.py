"""Scores of predictions against records, by the official metric that a task names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weft.data import Record, record_class
from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import ScoreReport
from weft.eval.metrics.matches import Matches
from weft.eval.metrics.registry import metric_named

Groups = dict[str, dict[Any, str]]


def fits(metric: str, record: Record) -> bool:
    """Tell whether a metric scores records of this type; one that names no types scores all."""
    kinds = tuple(map(record_class, metric_named(metric).types))
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
        metric: A name of `weft.eval.metrics.registry.METRICS`.
        predictions: Record id to answer, for every record; for retrieval the features of both sides.
        records: The records, with their answers.
        headline: Entry of the report's scores to show first, instead of the metric's own.

    Returns:
        The report, with groups by question type, answer type and novelty where the records tell them.

    Raises:
        ScoreInputError: If the metric or the headline is unknown, or the answers are hidden.
        ScoreTypeError: If a record is of another type than the metric scores.
    """
    chosen = metric_named(metric)
    hidden = [r.id for r in records if not reference(r)]
    if hidden:
        raise ScoreInputError(
            f"`records` must hold the answers to be scored, but {len(hidden)} have none, such as {hidden[0]!r}. "
            "Score another split, or write the predictions in the benchmark's submission format."
        )
    other = next((r for r in records if not fits(metric, r)), None)
    if other is not None:
        raise ScoreTypeError(
            f"`records` must be of type {' or '.join(map(repr, chosen.types))} for the metric {metric!r}, but "
            f"{other.id!r} is of type {other.record_type!r}. Choose another metric."
        )
    report = chosen.scorer(predictions, records, record_groups(records))
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
    answers = {template: counts.most_common(1)[0][0] for template, counts in by_template.items()}
    fallback = majority(train, test)
    return {record.id: answers.get(_template(record), fallback[record.id]) for record in test}


def _template(record: Record) -> str:
    told = record.extra.get("template"), getattr(record, "question_type", ""), getattr(record, "question", "")
    return str(next(filter(None, told), ""))
