"""The loss of a model that its own processor reads: what its reader says, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from weft.eval.evaluate.read import computed_in
from weft.eval.readers import Reader

_COMPUTED = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ByReader:
    """`loss_b = weight_b · mean_t -log p(answer_bt)`, or what a comparison of texts and pictures costs each row.

    Args:
        reader: The reader.
        precision: The recipe's `training.precision`. The trainer sees to it in a model's own `forward`; parts that a
            reader calls one by one get it here.
    """

    def __init__(self, reader: Reader, precision: str = "fp32") -> None:
        self.reader = reader
        self.computed = None if reader.calls_whole else _COMPUTED[precision]

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """One loss per row, shape `(batch,)`.

        Args:
            model: The model, which a wrapper such as data parallelism may hold.
            batch: `batch`, made by the reader.
        """
        device = next(model.parameters()).device
        made = batch["batch"].to(device, dtype=computed_in(model), non_blocking=True)
        with torch.autocast(device.type, self.computed, enabled=self.computed is not None):
            losses = self.reader.losses(model, made).rows
        return losses * made.weights.to(losses.dtype)
