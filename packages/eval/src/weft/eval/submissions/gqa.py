"""GQA: the prediction file of its evaluation script and its question files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.eval.errors import FormatError
from weft.eval.metrics.gqa import gqa_accuracy
from weft.eval.submissions.format import Predictions, References, Submission, register_submission
from weft.eval.submissions.reading import by_id, read_json, records


def _read_predictions(path: Path) -> Predictions:
    rows = records(read_json(path), path, ("questionId", "prediction"))
    return by_id(((row["questionId"], row["prediction"]) for row in rows), path)


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


def _write(predictions: Mapping[Any, Any]) -> str:
    return json.dumps([{"questionId": str(key), "prediction": answer} for key, answer in predictions.items()])


SUBMISSION = register_submission(
    Submission(
        task="gqa",
        description='predictions [{"questionId", "prediction"}], gold: a GQA questions file with answers',
        read_predictions=_read_predictions,
        write_predictions=_write,
        read_gold=_read_gold,
        score=gqa_accuracy,
        datasets=("gqa",),
    )
)
