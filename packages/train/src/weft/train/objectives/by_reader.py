"""The loss of a model as its reader says, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from weft.eval.readers import Reader

_COMPUTED = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ByReader:
    """What `weft.eval.readers.Reader.row_losses` says.

    The trainer sees to the precision in a model's own `forward`; parts that a reader calls one by one get it here.
    """

    def __init__(self, reader: Reader, precision: str = "fp32") -> None:
        self.reader = reader
        self.computed = None if reader.calls_whole else _COMPUTED[precision]

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """One loss per row, shape `(batch,)`, of a model or what holds it, such as data parallelism."""
        made = batch["batch"].beside(model)
        with torch.autocast(made.weights.device.type, self.computed, enabled=self.computed is not None):
            return self.reader.row_losses(model, made)
