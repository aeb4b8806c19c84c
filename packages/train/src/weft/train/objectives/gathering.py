"""Rows of all processes of a training that is spread over several, one after another by rank."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def processes() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return distributed.get_rank() if processes() > 1 else 0


def gathered(values: Tensor) -> Tensor:
    """Rows of every process, with their gradients; all must have as many.

    Args:
        values: Shape `(rows, ...)`.

    Returns:
        Shape `(processes * rows, ...)`.
    """
    return torch.cat(list(all_gather(values.contiguous()))) if processes() > 1 else values


def gathered_texts(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Texts of every process, padded to the longest; what is padded is masked.

    Args:
        input_ids: Shape `(rows, length)`.
        attention_mask: Shape `(rows, length)`.
    """
    if processes() == 1:
        return input_ids, attention_mask
    longest = torch.tensor(input_ids.shape[1], device=input_ids.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    missing = (0, int(longest) - input_ids.shape[1])
    padded = [torch.nn.functional.pad(values, missing) for values in (input_ids, attention_mask)]
    found = []
    for values in padded:
        parts = [torch.empty_like(values) for _ in range(processes())]
        distributed.all_gather(parts, values.contiguous())
        found.append(torch.cat(parts))
    return found[0], found[1]
