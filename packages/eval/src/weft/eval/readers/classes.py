"""The classes of a task, and which class each text or score of a batch belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weft.eval.readers.errors import ReaderError

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

    def label(self, row: Any) -> int:
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


@dataclass(frozen=True)
class Columns:
    """What the scores of a batch are of: classes of one or of several tasks, one task after the other.

    Attributes:
        of_texts: Column that each text belongs to, shape `(texts,)`; empty where no texts are read.
        of_rows: Whether a row may be of a column's class, which it may if both are of one task, shape
            `(rows, columns)`.
        labels: Column of each row's class, shape `(rows,)`.
    """

    of_texts: Tensor
    of_rows: Tensor
    labels: Tensor

    def changed(self, change: Callable[[Tensor], Tensor]) -> Columns:
        """The same with other tensors, such as on another device."""
        return Columns(change(self.of_texts), change(self.of_rows), change(self.labels))

    def losses(self, scores: Tensor) -> Tensor:
        """Cross-entropy of each row among the classes of its task, shape `(rows,)`.

        Args:
            scores: Shape `(rows, columns)`.
        """
        wide = scores if scores.dtype == torch.float64 else scores.float()
        own = wide.masked_fill(~self.of_rows, float("-inf"))
        return functional.cross_entropy(own, self.labels, reduction="none")
