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

Objective = Callable[[Any, dict[str, Any]], Tensor]


def objective(name: str) -> Objective:
    """The losses of an objective, by the name of its module."""
    losses: Objective = importlib.import_module(f"{__name__}.{name}").losses
    return losses


def compares_rows(name: str) -> bool:
    """Whether an objective needs all rows of a batch in one process."""
    return bool(getattr(importlib.import_module(f"{__name__}.{name}"), "COMPARES_ROWS", False))
