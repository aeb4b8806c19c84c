"""From sorted rows to tiles of tokens that share a task, without a host sync.

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
        task: task of every tile, int64, shape (tiles,).
        start: first position of every tile, int64.
        end: position after the last one of the tile, int64; ``end - start`` may be below `block`.
    """

    task: Tensor
    start: Tensor
    end: Tensor


def tile_table(bounds: Tensor, tokens: int, block: int, length: int = 1) -> TileTable:
    """Build the table.

    Args:
        bounds: place of every task's first sorted row, and the end of the last one, int64, shape (tasks + 1,).
        tokens: number of tokens.
        block: tokens per tile.
        length: tokens per row.

    Returns:
        A table of ``ceil(tokens / block) + tasks`` tiles.
    """
    tasks = bounds.shape[0] - 1
    first, last = bounds[:-1] * length, bounds[1:] * length
    tiles_of_task = (last - first + block - 1) // block
    cumulated = tiles_of_task.cumsum(0)
    tile = torch.arange(-(-tokens // block) + tasks, device=bounds.device)
    task = torch.searchsorted(cumulated, tile, right=True)
    used = task < tasks
    task = task.clamp(max=tasks - 1)
    start = first[task] + (tile - cumulated[task] + tiles_of_task[task]) * block
    start = torch.where(used, start, 0)
    end = torch.where(used, torch.minimum(start + block, last[task]), 0)
    return TileTable(task, start, end)
