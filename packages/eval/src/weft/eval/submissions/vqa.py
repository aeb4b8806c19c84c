"""VQA v1 and v2 (also OK-VQA, VizWiz in VQA form): the result and annotation files of the challenge."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from weft.eval.metrics.vqa import vqa_accuracy
from weft.eval.submissions.format import References, Submission, id_number, register_submission, write_objects
from weft.eval.submissions.reading import by_id, read_json, read_objects, records


def _read_gold(path: Path) -> References:
    data = read_json(path)
    rows = records(
        data.get("annotations") if isinstance(data, dict) else data, path, ("question_id", "answers")
    )
    return by_id(((row["question_id"], row) for row in rows), path)


SUBMISSION = register_submission(
    Submission(
        task="vqa",
        description='predictions [{"question_id", "answer"}], gold: an annotations file of the challenge',
        read_predictions=partial(read_objects, key="question_id", value="answer"),
        write_predictions=partial(write_objects, key="question_id", value="answer", as_id=id_number),
        read_gold=_read_gold,
        score=vqa_accuracy,
        datasets=("vqav2",),
    )
)
