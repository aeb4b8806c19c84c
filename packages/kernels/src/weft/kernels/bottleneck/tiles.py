"""Tiles: at most so many tokens, all of one task, found from sorted rows without a host sync.

The number of tiles is bounded by ``ceil(tokens / block) + tasks``, a plain integer known from shapes, so the
table has a fixed size, can be captured in a graph, and the same compiled code serves every assignment. Tiles
beyond the needed ones are empty (``start == end``).

Kernels take the table as it is. Away from the CPU the reference multiplies by per-task weights with it: `TiledRows`
has the interface of `segments.SegmentedRows`, but nothing is read on the host. Tokens are gathered into tiles, a
batched product runs over them, and the results are put back; tokens keep their original order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from weft.kernels.bottleneck.call import Call

_BLOCK = 64


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
    """A table of ``ceil(tokens / block) + tasks`` tiles, for rows of `length` tokens with `RoutedRows.bounds`."""
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


@dataclass(frozen=True)
class TiledRows:
    """Tokens in original order, and for every tile its token indices, their validity and the slots."""

    rows: int
    length: int
    token_tasks: Tensor
    token_of: Tensor  # (tiles, block)
    valid: Tensor  # (tiles, block)
    down_slot: Tensor  # (tiles,)
    up_slot: Tensor  # (tiles,)

    @property
    def tokens(self) -> int:
        """Number of tokens; identity tokens count."""
        return self.rows * self.length

    def gather(self, x: Tensor) -> Tensor:
        """(rows, length, width) → (tokens, width)."""
        return x.reshape(self.tokens, x.shape[-1])

    def add_to(self, base: Tensor | None, values: Tensor) -> Tensor:
        """Back to (rows, length, width), plus `base`."""
        shaped = torch.where(self.token_tasks.unsqueeze(1) >= 0, values, 0).view(self.rows, self.length, -1)
        return shaped if base is None else base + shaped

    def token_indices(self, device: torch.device) -> Tensor:
        """Index of every token, int64, shape (tokens,)."""
        return torch.arange(self.tokens, device=device)

    def per_token(self, table: Tensor) -> Tensor:
        """Rows of a (tasks or 1, width) table for every token."""
        return table if table.shape[0] == 1 else table.index_select(0, self.token_tasks.clamp(min=0))

    def sum_by_task(self, values: Tensor, tasks: int) -> Tensor:
        """(tokens, width) summed per task by a product with the one-hot matrix, hence in a fixed order."""
        if tasks == 1:
            return torch.where(self.token_tasks.unsqueeze(1) >= 0, values, 0).sum(0, keepdim=True)
        member = self.token_tasks.unsqueeze(0) == torch.arange(tasks, device=values.device).unsqueeze(1)
        return member.to(values.dtype) @ values

    def project(self, x: Tensor, weight: Tensor, part: str, bias: Tensor | None = None) -> Tensor:
        """``x[t] @ weight[slot(t)] + bias[slot(t)]``; zero for identity tokens."""
        slot = self._slot(part)
        tiles = torch.bmm(x[self.token_of], weight.index_select(0, slot))
        if bias is not None:
            tiles = tiles + bias.index_select(0, slot).unsqueeze(1)
        # Padding writes to one spare row past the end.
        out = x.new_zeros(self.tokens + 1, weight.shape[2])
        target = torch.where(self.valid, self.token_of, self.tokens).reshape(-1)
        out[target] = tiles.reshape(-1, weight.shape[2])
        return out[: self.tokens]

    def project_onto(
        self, base: Tensor | None, x: Tensor, weight: Tensor, part: str, bias: Tensor | None = None
    ) -> Tensor:
        """``add_to(base, project(x, weight, part, bias))``."""
        return self.add_to(base, self.project(x, weight, part, bias))

    def outer(self, a: Tensor, b: Tensor, weight: Tensor, part: str, sums: Tensor | None = None) -> Tensor:
        """As `SegmentedRows.outer`; tiles are summed by a product with the one-hot matrix of slots."""
        if sums is not None:
            sums.copy_(self.sum_by_slot(b, weight.shape[0], part))
        hole = ~self.valid.unsqueeze(-1)
        by_tile = torch.bmm(
            a[self.token_of].masked_fill(hole, 0).transpose(1, 2), b[self.token_of].masked_fill(hole, 0)
        )
        slots = weight.shape[0]
        member = self._slot(part).unsqueeze(0) == torch.arange(slots, device=a.device).unsqueeze(1)
        return (member.to(a.dtype) @ by_tile.flatten(1)).view(slots, a.shape[1], b.shape[1])

    def sum_by_slot(self, values: Tensor, slots: int, part: str) -> Tensor:
        """(tokens, width) summed per slot: (slots, width)."""
        ones = values.new_ones(values.shape[0], 1)
        return self.outer(ones, values, values.new_empty(slots, 0), part).squeeze(1)

    def _slot(self, part: str) -> Tensor:
        return self.down_slot if part == "down" else self.up_slot


def tile_rows(call: Call) -> TiledRows:
    """The rows of a call that has `ids`, in tiles."""
    ids, bounds, length, tokens = call.ids, call.bounds, call.length, call.tokens
    assert ids is not None
    assert bounds is not None
    token_tasks = ids.repeat_interleave(length, output_size=tokens)
    table = tile_table(bounds, tokens, _BLOCK, length)
    position = table.start.unsqueeze(1) + torch.arange(_BLOCK, device=ids.device)
    valid = position < table.end.unsqueeze(1)
    token_of = position = position.clamp(max=tokens - 1)
    if call.order is not None:
        token_of = call.order[position // length] * length + position % length
    down, up = slots_of(call, table.task, "down"), slots_of(call, table.task, "up")
    return TiledRows(call.rows, length, token_tasks, token_of, valid, down, up)


def slots_of(call: Call, task: Tensor, part: str) -> Tensor:
    """Slot of every task in `task`, in the part ``down`` or ``up``."""
    table = call.table(part)
    if table is not None:
        return table.to(torch.int64)[task]
    return torch.zeros_like(task) if call.slots(part) == 1 else task
