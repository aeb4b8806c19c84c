"""Losses that do not know where their batches come from: one file, one objective.

An objective is a module with `losses(model, batch)`, which returns one loss per row, shape `(batch,)`. Its name
is what a kind of record says as `objective` (`weft.eval.evaluate.kinds`). A module that compares the rows of a batch
with one another, and not with those of other processes, says so by `COMPARES_ROWS = True`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from weft.eval.readers import Reader
from weft.train.objectives.by_reader import ByReader
from weft.train.recipe.training import TrainingSection

Objective = Callable[[Any, dict[str, Any]], Tensor]


def objectives_of(
    model: Any, section: TrainingSection, rows: int, reader: Reader | None = None
) -> dict[str, Objective]:
    """What a model trains instead of the general objectives, ready to be called.

    Args:
        model: An adapted model; its class may name modules here as `objectives`.
        section: The recipe's `training`.
        rows: Rows of a batch of one process.
        reader: What reads the model, or None for one of weft's own.

    Returns:
        Name of a general objective to what stands in its place. One that keeps state between steps is an `nn.Module`.
    """
    if reader is not None:
        return {reader.objective: ByReader(reader, section.precision)}
    found: dict[str, Objective] = {}
    for general, name in getattr(model, "objectives", {}).items():
        module = importlib.import_module(f"{__name__}.{name}")
        found[general] = module.build(model, section, rows) if hasattr(module, "build") else module.losses
    return found


def objective(name: str) -> Objective:
    """The losses of an objective, by the name of its module."""
    losses: Objective = importlib.import_module(f"{__name__}.{name}").losses
    return losses


def compares_rows(name: str) -> bool:
    """Whether an objective needs all rows of a batch in one process."""
    return bool(getattr(importlib.import_module(f"{__name__}.{name}"), "COMPARES_ROWS", False))
