"""TVQA and How2QA (multiple choice), MSRVTT-QA and MSVD-QA (one-word answers)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.eval.errors import FormatError
from weft.eval.metrics.video_qa import multiple_choice_accuracy, open_ended_accuracy
from weft.eval.submissions.format import Predictions, References, Submission, register_submission
from weft.eval.submissions.reading import by_id, read_json, read_pairs, records


def _read_choices(path: Path) -> Predictions:
    data = read_json(path)
    if not isinstance(data, dict):
        raise FormatError(
            f"{str(path)!r} must map question ids to the number of an option, but holds a "
            f"{type(data).__name__}. Write {{'123': 0, …}}."
        )
    return by_id(data.items(), path)


def _read_tvqa_gold(path: Path) -> References:
    return by_id(((key, int(place)) for key, place in read_pairs(path, "qid", "answer_idx", "answers")), path)


def _write_choices(predictions: Mapping[Any, Any]) -> str:
    return json.dumps({str(key): _option(option) for key, option in predictions.items()})


def _option(given: Any) -> int:
    """The number of an option that a model chose (3) or wrote ("a3"); -1, which is wrong, for other words."""
    digits = str(given).removeprefix("a")
    return int(digits) if digits.isdigit() else -1


def _read_answers(path: Path) -> Predictions:
    return by_id(((row["question_id"], row["answer"]) for row in _rows(path, "question_id")), path)


def _read_open_gold(path: Path) -> References:
    return by_id(((row["id"], row["answer"]) for row in _rows(path, "id")), path)


def _rows(path: Path, identifier: str) -> list[dict[str, Any]]:
    return records(read_json(path), path, (identifier, "answer"))


def _write_answers(predictions: Mapping[Any, Any]) -> str:
    return json.dumps([{"question_id": key, "answer": answer} for key, answer in predictions.items()])


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
        read_predictions=_read_answers,
        write_predictions=_write_answers,
        read_gold=_read_open_gold,
        score=open_ended_accuracy,
        datasets=("msrvtt_qa",),
    )
)
