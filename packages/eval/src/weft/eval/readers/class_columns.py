"""Which class each score of a batch is of, and what the rows lose by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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
