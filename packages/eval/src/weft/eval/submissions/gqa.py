"""GQA: the prediction file of its evaluation script and its question files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from weft.eval.errors import FormatError
from weft.eval.metrics.gqa import gqa_accuracy
from weft.eval.submissions.format import References, Submission, register_submission, write_objects
from weft.eval.submissions.reading import by_id, read_json, read_objects


def _read_gold(path: Path) -> References:
    data = read_json(path)
    if not isinstance(data, dict) or not all(
        isinstance(item, dict) and "answer" in item for item in data.values()
    ):
        raise FormatError(
            f"{str(path)!r} must map question ids to objects with `answer`, but does not. "
            "Use a GQA question file of a split with answers."
        )
    return by_id(data.items(), path)


SUBMISSION = register_submission(
    Submission(
        task="gqa",
        description='predictions [{"questionId", "prediction"}], gold: a GQA questions file with answers',
        read_predictions=partial(read_objects, key="questionId", value="prediction"),
        write_predictions=partial(write_objects, key="questionId", value="prediction", as_id=str),
        read_gold=_read_gold,
        score=gqa_accuracy,
        datasets=("gqa",),
    )
)
