"""Whether a metric can score records of a type and has the entry that is asked for, before anything is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

from weft.data.records import RECORD_TYPES, Record, Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.scoring import reference, score

SCORED_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "caption": "caption",
        "gqa": "image_qa",
        "multiple_choice": "video_mc",
        "nlvr": "pair_bool",
        "nlvr2": "pair_bool",
        "open_ended": "video_qa",
        "retrieval": "retrieval",
        "vqa": "image_qa",
        "vqa_vl_adapter": "image_qa",
    }
)
"""Name of a metric to the type of records it scores, a key of `weft.data.records.RECORD_TYPES`."""


def check_metric(metric: str, records: Sequence[Record], headline: str | None = None) -> None:
    """Refuse a metric for records of another type, and a headline that it does not have.

    A headline is looked up in the scores of two records' own answers, so that no list of names can be out of date.

    Args:
        metric: A key of `METRICS`.
        records: The records that will be scored.
        headline: Entry of the scores that tables are to show, or None.

    Raises:
        ScoreInputError: Naming the metrics, or the headlines, that would fit.
    """
    record = records[0]
    if metric in SCORED_TYPES and not isinstance(record, RECORD_TYPES[SCORED_TYPES[metric]]):
        fitting = sorted(
            name for name, scored in SCORED_TYPES.items() if isinstance(record, RECORD_TYPES[scored])
        )
        raise ScoreInputError(
            f"`metric` must score records of type {record.task!r}, but {metric!r} scores {SCORED_TYPES[metric]!r}. "
            f"Take {' or '.join(map(repr, fitting)) or 'other records'}."
        )
    if headline is None:
        return
    few = list(islice(filter(reference, records), 2))
    if few:
        score(metric, _answers(few), few, headline=headline)


def _answers(records: Sequence[Any]) -> Any:
    if not isinstance(records[0], Retrieval):
        return {record.id: reference(record) for record in records}
    # Features are tensors before they are arrays: torch is not loaded for the names of metrics.
    import numpy as np

    from weft.eval.evaluate.retrieve import Matches

    texts = tuple(dict.fromkeys(record.text_id for record in records))
    images = tuple(dict.fromkeys(record.media_id for record in records))
    of_texts, of_images = (np.ones((len(ids), 1), np.float32) for ids in (texts, images))
    return Matches(texts, images, of_texts, of_images)
