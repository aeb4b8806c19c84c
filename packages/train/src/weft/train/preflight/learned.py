"""The records that a model can learn from, where its own processor reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.eval.readers import Reader
from weft.train.backbones.loading import reader_of
from weft.train.errors import RunError
from weft.train.preflight.tasks import TaskData, check_batch_size, load_tasks
from weft.train.recipe.training import Recipe


def load_learnable(recipe: Recipe) -> dict[str, TaskData]:
    """The records of every task, without those to train on that have nothing to learn.

    They are left out where a model is read by its own processor, and counted. Other models train on them at weight 0.

    Raises:
        RunError: As `weft.train.preflight.tasks.load_tasks`, or if an answer is longer than `max_target_tokens` and
            none may be left out.
        ReaderError: If the model has no processor that a reader reads.
    """
    tasks = load_tasks(recipe)
    reader = reader_of(recipe.backbone)
    if reader.paired or reader.objective != "generation":
        return tasks
    for name, data in tasks.items():
        if "train" in data:
            records, left_out = _trainable(recipe, name, data["train"], reader)
            tasks[name] = TaskData({**data.splits, "train": records}, left_out)
            check_batch_size(recipe, name, tasks[name])
    return tasks


def left_out_of(tasks: Mapping[str, TaskData]) -> list[str]:
    """What is left out of the records to train on, one line for each task that lacks some."""
    return [
        f"{name}: {sum(data.left_out.values()):,} of {sum(data.left_out.values()) + len(data['train']):,} records to "
        f"train on are left out, {' and '.join(f'{count:,} with {why}' for why, count in data.left_out.items())}"
        for name, data in tasks.items()
        if data.left_out
    ]


def _trainable(recipe: Recipe, task: str, records: Any, reader: Reader) -> tuple[Any, dict[str, int]]:
    """The records of a task that have an answer, and one short enough; and how many were left out for which reason."""
    answers = [record.references() for record in records]
    answered = [place for place, own in enumerate(answers) if own]
    if not answered:
        return records, {}
    left = {"no answer": len(records) - len(answered)}
    limit = recipe.tasks[task].max_target_tokens
    fitting = answered
    if limit is not None:
        lengths = {place: max(map(reader.answer_length, answers[place])) for place in answered}
        fitting = [place for place in answered if lengths[place] <= limit]
        if len(fitting) < len(answered) and (recipe.training.too_long != "drop" or not fitting):
            worst = max(answered, key=lambda place: lengths[place])
            raise RunError(
                f"`tasks.{task}.max_target_tokens` must be at least the length of every answer, but is {limit}, and "
                f"{len(answered) - len(fitting)} of {len(answered)} are longer, such as that of "
                f"{records[worst].id!r} with {lengths[worst]} tokens. Raise it, or leave such records out: "
                "training.too_long=drop."
            )
        left["too long an answer"] = len(answered) - len(fitting)
    left = {reason: count for reason, count in left.items() if count}
    return (records.select(fitting), left) if left else (records, {})
