"""From one task per token to tiles of tokens that share a task, without a host sync.

The number of tiles is bounded by ``ceil(tokens / block) + tasks``, a plain integer known from shapes, so the
table has a fixed size, can be captured in a graph, and the same compiled code serves every assignment. Tiles
beyond the needed ones are empty (``start == end``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TileTable(NamedTuple):
    """Tiles of at most `block` tokens; positions index `order`, which lists tokens sorted by task.

    Attributes:
        order: token at every position, int64, shape (tokens,); identity tokens come first.
        task: task of every tile, int32, shape (tiles,).
        start: first position of every tile, int32.
        end: position after the last one of the tile, int32; ``end - start`` may be below `block`.
    """

    order: Tensor
    task: Tensor
    start: Tensor
    end: Tensor


def tile_table(token_tasks: Tensor, tasks: int, block: int) -> TileTable:
    """Build the table.

    Args:
        token_tasks: task of every token, -1 for identity, int64, shape (tokens,).
        tasks: number of tasks.
        block: tokens per tile.

    Returns:
        A table of ``ceil(tokens / block) + tasks`` tiles.
    """
    tokens = token_tasks.numel()
    ordered, order = torch.sort(token_tasks, stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(tasks + 1, device=ordered.device, dtype=ordered.dtype))
    first, last = bounds[:-1], bounds[1:]
    tiles_of_task = (last - first + block - 1) // block
    cumulated = tiles_of_task.cumsum(0)
    tile = torch.arange(-(-tokens // block) + tasks, device=ordered.device)
    task = torch.searchsorted(cumulated, tile, right=True)
    used = task < tasks
    task = task.clamp(max=tasks - 1)
    start = first[task] + (tile - cumulated[task] + tiles_of_task[task]) * block
    start = torch.where(used, start, 0)
    end = torch.where(used, torch.minimum(start + block, last[task]), 0)
    return TileTable(order, task.to(torch.int32), start.to(torch.int32), end.to(torch.int32))
