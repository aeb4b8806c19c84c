"""Whether a metric can score records of a type and has the entry that is asked for, before anything is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.data import Record, Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.scoring import fits, reference, score
from weft.eval.metrics.matches import Matches
from weft.eval.metrics.registry import METRICS, metric_named

_TRIED = 2


def check_metric(metric: str, records: Sequence[Record], headline: str | None = None) -> None:
    """Refuse a metric that cannot score some of the records, and a headline that it does not have.

    The metric is tried on two records of every form (two with one answer, two with ten, ...), with their own answers
    as predictions, so that no list of rules or names can be out of date.

    Args:
        metric: A name of `weft.eval.metrics.registry.METRICS`.
        records: The records that will be scored. Where all answers are hidden, nothing is.
        headline: Entry of the scores that tables are to show, or None.

    Raises:
        ScoreInputError: Naming the metrics, the records or the headlines that would fit.
    """
    chosen = metric_named(metric)
    if not fits(metric, records[0]):
        fitting = sorted(repr(name) for name in METRICS if fits(name, records[0]))
        raise ScoreInputError(
            f"`metric` must score records of type {records[0].record_type!r}, but {metric!r} scores "
            f"{' and '.join(map(repr, chosen.types))}. Take {' or '.join(fitting) or 'other records'}."
        )
    forms: dict[tuple[int, bool], list[Record]] = {}
    for record in records:
        given = record.references()
        forms.setdefault((len(given), all(map(str.strip, given))), []).append(record)
    lacking = [record for (count, whole), alike in forms.items() if not (count and whole) for record in alike]
    if len(lacking) == len(records) and not any(map(reference, records)):
        return
    if lacking:
        raise ScoreInputError(
            f"`records` must all have answers, or all hide them, but {len(lacking)} of {len(records)} have none or an "
            f"empty one, such as {lacking[0].id!r}. Fix these records or leave them out of the split."
        )
    if headline is not None and chosen.headlines and headline not in chosen.headlines:
        raise ScoreInputError(
            f"`headline` must be one of {', '.join(chosen.headlines)}, but is {headline!r}."
        )
    for alike in forms.values():
        try:
            score(metric, _answers(alike[:_TRIED]), alike[:_TRIED])
        except ScoreInputError as error:
            raise ScoreInputError(
                f"{len(alike)} of {len(records)} records do not fit {metric!r}: {error}"
            ) from None


def check_targets(records: Sequence[Record]) -> int:
    """Refuse records to train on of which none says what is right, or some say it with an empty text.

    Returns:
        How many have no answer; they count nothing in training.

    Raises:
        ScoreInputError: Naming the first of these records.
    """
    absent, empty = [], []
    for record in records:
        given = (record.text,) if isinstance(record, Retrieval) else record.references()
        if not given:
            absent.append(record.id)
        elif not all(map(str.strip, given)):
            empty.append(record.id)
    if len(absent) == len(records):
        raise ScoreInputError(
            f"`records` to train on must say what is right, but none of {len(records)} has an answer. Train on a split "
            "whose answers are not hidden, and check the columns."
        )
    if empty:
        raise ScoreInputError(
            f"An answer or caption to train on must hold a word, but {len(empty)} of {len(records)} records have an "
            f"empty one, such as {empty[0]!r}. Fix these records or leave them out of the split."
        )
    return len(absent)


def _answers(records: Sequence[Any]) -> Any:
    if not isinstance(records[0], Retrieval):
        return {record.id: reference(record) for record in records}
    texts = tuple(dict.fromkeys(record.text_id for record in records))
    images = tuple(dict.fromkeys(record.media_id for record in records))
    of_texts, of_images = (np.ones((len(ids), 1), np.float32) for ids in (texts, images))
    return Matches(texts, images, of_texts, of_images)
