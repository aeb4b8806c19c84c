"""Losses that do not know where their batches come from: one file, one objective.

An objective is called with a model and a batch of `weft.eval.evaluate.read`, and returns one loss per row, shape
`(rows,)`. A model's reader says which it needs; one that keeps state between steps is an `nn.Module`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from weft.eval.readers import Reader
from weft.train.objectives.by_reader import ByReader
from weft.train.objectives.image_text import ImageText
from weft.train.recipe.training import TrainingSection

CLASSIFICATION = "classification"
Objective = Callable[[Any, dict[str, Any]], Tensor]


def objectives_of(model: Any, section: TrainingSection, rows: int, reader: Reader) -> dict[str, Objective]:
    """What an adapted model is trained by, ready to be called: the objectives of its reader's batches, by name.

    `rows` are those of a batch of one process.
    """
    if reader.keeps_momentum:
        objective = ImageText(model, section.contrast, rows).to(next(model.parameters()).device)
        return {reader.objective: objective}
    each = ByReader(reader, section.precision)
    return {reader.objective: each, **({CLASSIFICATION: each} if "classify" in reader.abilities else {})}


def compares_rows(reader: Reader) -> bool:
    """Whether the loss of a row compares it with the others of its batch, and not with those of other processes."""
    return reader.objective == "contrastive" and not reader.keeps_momentum
