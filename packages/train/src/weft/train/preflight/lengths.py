"""Whether rows to train on are too long, looked at before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers import Reader, ReaderError, Row
from weft.train.errors import RunError
from weft.train.preflight.reading import reader_batches
from weft.train.preflight.tasks import TaskData
from weft.train.recipe.training import Recipe

COUNTED = 20_000
"""Rows of a task whose words are counted at most, spread over all."""
OPENED = 8
"""Rows of a task that are read with their pictures: those of the most words and of the most pictures."""


def check_lengths(recipe: Recipe, tasks: Mapping[str, TaskData], reader: Reader) -> list[str]:
    """Refuse rows to train on that are longer than `training.max_tokens`, as far as some of them tell.

    The words of all rows are counted, of `COUNTED` in a larger task; `OPENED` of them are read as in training, pictures
    and all. What only other rows would show is found in training, by the same rule.

    Returns:
        For each task what was looked at and found, in words; nothing where no length is limited.

    Raises:
        RunError: If one is too long and none may be dropped, or all are.
        WeftDataError: If a picture cannot be read.
    """
    limit = recipe.training.max_tokens
    if reader.paired or limit is None or reader.objective != "generation":
        return []
    batches = reader_batches(recipe, reader)
    return [
        _looked_at(name, data["train"], batches, limit) for name, data in tasks.items() if "train" in data
    ]


def _looked_at(task: str, records: Sequence[Any], batches: ReaderBatches, limit: int) -> str:
    step = -(-len(records) // COUNTED)
    rows = [_longest(batches.row(task, record, 0), record) for record in records[::step]]
    lengths = [batches.reader.least_length(row) for row in rows]
    by_words = sorted(range(len(rows)), key=lambda place: -lengths[place])
    by_pictures = sorted(by_words, key=lambda place: -len(rows[place].pictures))
    opened = dict.fromkeys([*by_words[: OPENED // 2], *by_pictures[: OPENED // 2]])
    strict = batches.reader.limited(replace(batches.limits, too_long="refuse"))
    faults = {place: "" for place, length in enumerate(lengths) if length > limit}
    for place in opened:
        try:
            strict.training([rows[place]])
        except ReaderError as error:
            faults[place] = str(error)
    counted = "all" if step == 1 else f"{len(rows):,} of {len(records):,}"
    how = f"the words of {counted} rows counted, {len(opened)} read with their pictures"
    if not faults:
        return f"{task}: no row is longer than training.max_tokens ({limit}): {how}"
    if batches.limits.too_long != "drop" or len(faults) == len(rows):
        worst = next(filter(None, faults.values()), "")
        raise RunError(
            f"Task {task!r} cannot be trained, for at least {len(faults):,} of {len(rows):,} rows are too long "
            f"({how}). {worst.replace('`tokens`', '`training.max_tokens`')}"
        )
    return (
        f"{task}: at least {len(faults):,} of {len(rows):,} rows are longer than training.max_tokens ({limit}) and are "
        f"dropped where they are drawn: {how}"
    )


def _longest(row: Row, record: Any) -> Row:
    """A row with the longest of the answers that it may be given."""
    return replace(row, answer=max(record.references(), key=len, default=row.answer))
