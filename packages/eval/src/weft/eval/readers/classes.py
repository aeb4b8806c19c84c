"""The classes of a task, and which class each text or score of a batch belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weft.eval.readers.abilities import Ability
from weft.eval.readers.class_columns import Columns
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Row, Turn

SLOT = "{}"
"""Where a template names the class."""


@dataclass(frozen=True)
class Classes:
    """The classes that the rows of a task are told apart by.

    Attributes:
        names: Their names, in the order of their labels.
        texts: The texts about each; what encoders of texts read.
        text_tokens: Each is cut there by readers that cut; None cuts nothing.
    """

    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    text_tokens: int | None = None

    @classmethod
    def written(
        cls,
        names: Sequence[str],
        templates: Sequence[str],
        said: Sequence[str] = (),
        text_tokens: int | None = None,
    ) -> Classes:
        """Classes with the texts that templates make of their names.

        Args:
            names: The names.
            templates: Texts in which `{}` stands for a name.
            said: What templates say instead of each name; by default the name.
            text_tokens: See the attribute.
        """
        texts = tuple(tuple(text.replace(SLOT, word) for text in templates) for word in said or names)
        return cls(tuple(names), texts, text_tokens)

    def rows(self, task: str) -> list[Row]:
        """The texts as rows, class after class.

        Args:
            task: Name of the task.
        """
        return [
            Row(f"{task}/{name}", task, (Turn("user", (text,)),), text_tokens=self.text_tokens)
            for name, own in zip(self.names, self.texts, strict=True)
            for text in own
        ]

    def label(self, row: Row) -> int:
        """Place of a row's answer among the names.

        Raises:
            ReaderError: If it is none of them.
        """
        if row.answer not in self.names:
            raise ReaderError(
                f"`answer` must be a class of task {row.task!r}, but that of {row.name} is {row.answer!r}. Train on "
                "records of these classes alone."
            )
        return self.names.index(row.answer)


class Classifying(ABC):
    """What a reader does that tells pictures apart by classes; by default it refuses to."""

    @abstractmethod
    def _refusal(self, ability: Ability) -> ReaderError:
        """What is raised where the model lacks an ability."""

    def class_features(
        self, model: Any, task: str, classes: Classes, *, batch_size: int = 128
    ) -> Tensor | None:
        """What `classify` compares pictures with; None where the model knows the classes itself.

        Args:
            model: The model.
            task: Name of the task.
            classes: Its classes.
            batch_size: Texts of one pass.
        """
        raise self._refusal("classify")

    def classify(self, model: Any, batch: Any, features: Tensor | None) -> Tensor:
        """Scores of the classes of the task that all rows are of, shape `(rows, classes)`.

        Args:
            model: The model, on the batch's device.
            batch: From `asking`.
            features: From `class_features`.
        """
        raise self._refusal("classify")


def columns(rows: Sequence[Row], order: Sequence[tuple[str, Classes]], *, texts: bool) -> Columns:
    """Which columns the rows of a batch are told apart by.

    Args:
        rows: The rows, each with its classes.
        order: Task and classes of the columns, in their order.
        texts: Whether the model reads the texts of the classes.

    Raises:
        ReaderError: If a row's answer is no class of its task.
    """
    first, starts, owner = 0, dict[str, int](), []
    for task, classes in order:
        starts[task] = first
        first += len(classes.names)
        owner += [task] * len(classes.names)
    counts = [len(own) for _, classes in order for own in classes.texts] if texts else []
    allowed = [[task == row.task for task in owner] for row in rows]
    labels = [starts[row.task] + _classes(row).label(row) for row in rows]
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

    Args:
        rows: The rows.

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


def _classes(row: Row) -> Classes:
    classes = row.classes
    assert isinstance(classes, Classes), "rows without classes are told apart otherwise"
    return classes
