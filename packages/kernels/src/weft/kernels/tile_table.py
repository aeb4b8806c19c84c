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
    """Tiles of at most `block` tokens, in the order of rows sorted by task.

    Position p of the sorted tokens is token ``order[p // length] · length + p % length``.

    Attributes:
        order: row at every place of the sorted rows, int64, shape (rows,); identity rows come first.
        bounds: first position of every task, and the end of the last one, int64, shape (tasks + 1,).
        task: task of every tile, int32, shape (tiles,).
        start: first position of every tile, int32.
        end: position after the last one of the tile, int32; ``end - start`` may be below `block`.
    """

    order: Tensor
    bounds: Tensor
    task: Tensor
    start: Tensor
    end: Tensor


def tile_table(row_tasks: Tensor, tasks: int, block: int, length: int = 1) -> TileTable:
    """Build the table.

    Args:
        row_tasks: task of every row, -1 for identity, int64, shape (rows,).
        tasks: number of tasks.
        block: tokens per tile.
        length: tokens per row.

    Returns:
        A table of ``ceil(rows · length / block) + tasks`` tiles.
    """
    tokens = row_tasks.numel() * length
    ordered, order = torch.sort(row_tasks, stable=True)
    steps = torch.arange(tasks + 1, device=ordered.device, dtype=ordered.dtype)
    bounds = torch.searchsorted(ordered, steps) * length
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
    return TileTable(order, bounds, task.to(torch.int32), start.to(torch.int32), end.to(torch.int32))
