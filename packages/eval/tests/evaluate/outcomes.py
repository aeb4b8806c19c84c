"""Run by `test_processes.py` as `outcomes.py RANK SIZE MEETING`: predict, score, and print as one of SIZE processes."""

import json
import sys
from typing import Any

import torch.distributed as distributed
from test_predictions import TRANSFORM, make_batches, make_model
from test_ranking import ANSWERS
from test_retrieval import RECORDS, ByColor, batches

from weft.data import load_dataset
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.processes import shared_batches
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.scoring import score
from weft.eval.evaluate.visual import Pixels

SIZES = {"vqa": 23, "nlvr": 22, "caption": 7}


class Counted(Pixels):
    """Counts the images of every batch."""

    seen: list[int] = []  # noqa: RUF012 - one list for the whole process

    def __call__(self, groups: Any) -> Any:
        self.seen.append(len(groups))
        return super().__call__(groups)


def outcomes() -> dict[str, Any]:
    """Predictions and scores of four ways to evaluate."""
    model, found = make_model(), {}
    inputs = make_batches(Counted(TRANSFORM))
    for task, size in SIZES.items():
        records = load_dataset("scenes", split="test", task=task, size=size, num_scenes=60)
        predictions = predict(model, task, records, inputs, batch_size=5)
        found[task] = [predictions, dict(score(task, predictions, records).scores)]
    questions = load_dataset("scenes", split="test", task="vqa", size=9, num_scenes=60)
    found["ranked"] = rank_answers(model, "vqa", questions, inputs, ANSWERS, batch_size=2)
    matches = predict(ByColor(), "colors", RECORDS[:3], batches(), batch_size=1)
    found["retrieval"] = [matches.text_features.tolist(), matches.image_features.tolist()]
    return found


if __name__ == "__main__":
    rank, size, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    with shared_batches():
        made = outcomes()
    sys.stdout.write(json.dumps([made, Counted.seen]) + "\n")
    if size > 1:
        distributed.destroy_process_group()
