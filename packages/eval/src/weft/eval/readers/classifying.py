"""Rows that are told apart by the classes of their tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from weft.eval.readers.classes import Classes, Columns
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Row, Turn


def class_rows(task: str, classes: Classes) -> list[Row]:
    """The texts about the classes of a task as rows, class after class."""
    return [
        Row(f"{task}/{name}", task, (Turn("user", (text,)),), text_tokens=classes.text_tokens)
        for name, own in zip(classes.names, classes.texts, strict=True)
        for text in own
    ]


def columns(rows: Sequence[Row], order: Sequence[tuple[str, Classes]], *, texts: bool) -> Columns:
    """Which columns the rows of a batch are told apart by.

    Args:
        rows: The rows, each with its classes.
        order: Task and classes of the columns, in their order.
        texts: Whether the model reads the texts of the classes.

    Raises:
        ReaderError: If a row's answer is no class of its task.
    """
    starts, owner = dict[str, int](), list[str]()
    for task, classes in order:
        starts[task] = len(owner)
        owner += [task] * len(classes.names)
    counts = [len(own) for _, classes in order for own in classes.texts] if texts else []
    allowed = [[task == row.task for task in owner] for row in rows]
    labels = [starts[row.task] + row.classes.label(row) for row in rows if row.classes is not None]
    of_texts = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
    return Columns(of_texts, torch.tensor(allowed), torch.tensor(labels))


def class_features(texts: Tensor, of_texts: Tensor) -> Tensor:
    """Features of classes: the mean of those of their texts, of length one, shape `(columns, size)`.

    Args:
        texts: Features of texts, of length one, shape `(texts, size)`.
        of_texts: Column of each text, shape `(texts,)`.

    Source: CLIP (Radford et al. 2021), section 3.1.4.
    """
    count = int(of_texts[-1]) + 1
    sums = texts.new_zeros(count, texts.shape[1]).index_add(0, of_texts, texts)
    return functional.normalize(sums, dim=-1)


def told_apart(rows: Sequence[Row]) -> list[tuple[str, Classes]]:
    """Task and classes of rows, each task once, in the order in which they come; none where rows have no classes.

    Raises:
        ReaderError: If some rows have classes and others have none.
    """
    found = {row.task: row.classes for row in rows}
    bare = [row.name for row in rows if row.classes is None]
    if bare and len(bare) < len(rows):
        raise ReaderError(
            f"`rows` of one batch must all be told apart by classes, or none, but {bare[0]} has none. Draw homogeneous "
            "batches: set training.mixing.unit to homogeneous."
        )
    return [(task, classes) for task, classes in found.items() if classes is not None]
