"""Pictures that text attends to by cross-attention, through a mask, instead of having them in its sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from weft.eval.readers.batch import Batch

IDS = "input_ids"


def cross_attends(inputs: Mapping[str, Any]) -> bool:
    """Whether text attends to pictures by cross-attention, as in Llama 3.2 Vision.

    Then what the model reads has a mask of the rows and tokens of `input_ids` with further dimensions.
    """
    ids = inputs[IDS]
    return any(value.dim() > ids.dim() and value.shape[: ids.dim()] == ids.shape for value in inputs.values())


def rows_without_pictures(batch: Batch) -> Tensor | None:
    """The rows that have no picture and must be read without any, or None.

    Where all pictures are masked, transformers lets a token attend to all of them alike: such a row would depend on the
    others of its batch. Without pictures the model leaves those layers out.

    Returns:
        Which rows show none, shape `(rows,)`; None where all are read alike.
    """
    if not cross_attends(batch.inputs):
        return None
    bare = torch.ones(len(batch), dtype=torch.bool)
    bare[batch.owners["images"]] = False
    return bare.to(batch.inputs[IDS].device) if bool(bare.any()) else None


def text_inputs(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of all rows without their pictures."""
    return {name: value for name, value in inputs.items() if value.shape == inputs[IDS].shape}
