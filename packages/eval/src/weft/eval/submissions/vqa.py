"""VQA v1 and v2 (also OK-VQA, VizWiz in VQA form): the result and annotation files of the challenge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.eval.metrics.vqa import vqa_accuracy
from weft.eval.submissions.format import Predictions, References, Submission, register_submission
from weft.eval.submissions.reading import by_id, read_json, records


def _read_predictions(path: Path) -> Predictions:
    rows = records(read_json(path), path, ("question_id", "answer"))
    return by_id(((row["question_id"], row["answer"]) for row in rows), path)


def _read_gold(path: Path) -> References:
    data = read_json(path)
    rows = records(
        data.get("annotations") if isinstance(data, dict) else data, path, ("question_id", "answers")
    )
    return by_id(((row["question_id"], row) for row in rows), path)


def _write(predictions: Mapping[Any, Any]) -> str:
    return json.dumps(
        [{"question_id": _number(key), "answer": answer} for key, answer in predictions.items()]
    )


def _number(key: Any) -> Any:
    # The server wants numbers where ids are numbers.
    return int(key) if str(key).isdigit() else key


SUBMISSION = register_submission(
    Submission(
        task="vqa",
        description='predictions [{"question_id", "answer"}], gold: an annotations file of the challenge',
        read_predictions=_read_predictions,
        write_predictions=_write,
        read_gold=_read_gold,
        score=vqa_accuracy,
        datasets=("vqav2",),
    )
)
