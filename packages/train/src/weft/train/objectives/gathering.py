"""Rows of all processes of a training that is spread over several, one after another by rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from weft.eval.metrics.processes import place


class _Gathered(torch.autograd.Function):
    """Rows of all processes; a row's gradient is the sum of what every process wants of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _all_rows(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        rank, size = place()
        return total.chunk(size)[rank]


def _all_rows(values: Tensor) -> Tensor:
    values = values.contiguous()
    parts = [torch.empty_like(values) for _ in range(place()[1])]
    distributed.all_gather(parts, values)
    return torch.cat(parts)


def gathered(values: Tensor) -> Tensor:
    """Rows of every process, shape `(processes * rows, ...)`, with their gradients; all must have as many."""
    if place()[1] == 1:
        return values
    return _Gathered.apply(values)


def gathered_texts(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and masks of the texts of every process, shape `(rows, length)`, padded to the longest; padding is masked."""
    if place()[1] == 1:
        return input_ids, attention_mask
    longest = torch.tensor(input_ids.shape[1], device=input_ids.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    missing = (0, int(longest) - input_ids.shape[1])
    padded = [torch.nn.functional.pad(values, missing) for values in (input_ids, attention_mask)]
    return _all_rows(padded[0]), _all_rows(padded[1])
