"""TVQA and How2QA (multiple choice), MSRVTT-QA and MSVD-QA (one-word answers)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from weft.eval.errors import FormatError
from weft.eval.metrics.video_qa import multiple_choice_accuracy, open_ended_accuracy
from weft.eval.submissions.format import (
    Predictions,
    References,
    Submission,
    register_submission,
    write_objects,
)
from weft.eval.submissions.reading import by_id, read_json, read_objects, read_pairs


def _read_choices(path: Path) -> Predictions:
    data = read_json(path)
    if not isinstance(data, dict):
        raise FormatError(
            f"{str(path)!r} must map question ids to the number of an option, but holds a "
            f"{type(data).__name__}. Write {{'123': 0, …}}."
        )
    return by_id(data.items(), path)


def _read_tvqa_gold(path: Path) -> References:
    return {key: int(place) for key, place in read_pairs(path, "qid", "answer_idx", "answers").items()}


def _write_choices(predictions: Mapping[Any, Any]) -> str:
    return json.dumps({str(key): _option(option) for key, option in predictions.items()})


def _option(given: Any) -> int:
    """The number of an option that a model chose (3) or wrote ("a3"); -1, which is wrong, for other words."""
    digits = str(given).removeprefix("a")
    return int(digits) if digits.isdigit() else -1


TVQA = register_submission(
    Submission(
        task="tvqa",
        description='predictions {"qid": option}, gold: TVQA JSON lines with `answer_idx`',
        read_predictions=_read_choices,
        write_predictions=_write_choices,
        read_gold=_read_tvqa_gold,
        score=multiple_choice_accuracy,
        datasets=("tvqa", "how2qa"),
    )
)

MSRVTT_QA = register_submission(
    Submission(
        task="msrvtt_qa",
        description='predictions [{"question_id", "answer"}], gold [{"id", "answer"}]',
        read_predictions=partial(read_objects, key="question_id", value="answer"),
        write_predictions=partial(write_objects, key="question_id", value="answer"),
        read_gold=partial(read_objects, key="id", value="answer"),
        score=open_ended_accuracy,
        datasets=("msrvtt_qa",),
    )
)
