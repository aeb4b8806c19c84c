"""Whether the rows of a model can be concatenated, found out before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from weft.data import Record
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers import Reader, ReaderError
from weft.eval.readers.batch import computed_in
from weft.eval.readers.packing import packed, padded
from weft.train.errors import RunError

_ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}
_ROUNDED = 5e-2  # of losses in 16 bits


def check_packing(reader: Reader, plan: Any) -> None:
    """Refuse to pack rows that the model or the method does not keep apart.

    Raises:
        RunError: With the reason.
    """
    try:
        packed(reader)
    except ReaderError as error:
        raise RunError(str(error)) from None
    for config in plan.configs:
        if {"rows", "front"} & set(config.needs):
            raise RunError(
                f"`training.packing` must be false for the method {config.method!r}, which gives every row tokens of "
                "its own or reads it as a whole, but is true. Leave it out."
            )


def check_rows_apart(model: Any, batches: ReaderBatches, rows: Sequence[tuple[str, Record]]) -> None:
    """Compare the losses of some rows, concatenated by the reader of the batches, with those of the padded batch.

    Raises:
        RunError: If they differ.
    """
    own = batches.reader
    made = batches.training(rows)["batch"].to(next(model.parameters()).device, dtype=computed_in(model))
    training = model.training
    model.eval()
    with torch.no_grad(), model.route(tasks=made.tasks):
        found, expected = (reader.losses(model, made).rows.float() for reader in (own, padded(own)))
    model.train(training)
    limit = _ALIKE.get(computed_in(model), _ROUNDED)
    if not torch.allclose(found, expected, rtol=limit, atol=limit):
        raise RunError(
            f"`training.packing` must be false for {own.title} because its rows are not kept apart: the first "
            f"losses are {found.tolist()} packed and {expected.tolist()} padded. Leave it out."
        )
