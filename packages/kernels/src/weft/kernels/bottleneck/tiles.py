"""Rows grouped into padded tiles: how the reference multiplies by per-task weights away from the CPU.

Same interface as `segments.SegmentedRows`, but nothing is read on the host: tokens are gathered into tiles of
one task each, a batched product runs over the tiles, and the results are put back. Tokens keep their original
order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weft.kernels.bottleneck.tile_table import tile_table
from weft.kernels.routed_rows import RoutedRows

_BLOCK = 64


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

    def outer(self, a: Tensor, b: Tensor, weight: Tensor, part: str) -> Tensor:
        """``Σ a[t]ᵀ b[t]`` per slot; tiles are summed by a product with the one-hot matrix of slots."""
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


def tile_rows(
    rows: int,
    length: int,
    slots: tuple[int, int],
    routing: RoutedRows,
    down_slots: Tensor | None,
    up_slots: Tensor | None,
) -> TiledRows:
    """Build the tiles; arguments as in `segments.segment_rows`."""
    tokens = rows * length
    token_tasks = routing.ids.repeat_interleave(length, output_size=tokens)
    table = tile_table(routing.bounds, tokens, _BLOCK, length)
    position = table.start.unsqueeze(1) + torch.arange(_BLOCK, device=token_tasks.device)
    valid = position < table.end.unsqueeze(1)
    position = position.clamp(max=tokens - 1)
    token_of = position
    if routing.order is not None:
        token_of = routing.order[position // length] * length + position % length
    down = slots_of(table.task, slots[0], down_slots)
    return TiledRows(
        rows, length, token_tasks, token_of, valid, down, slots_of(table.task, slots[1], up_slots)
    )


def slots_of(task: Tensor, slots: int, table: Tensor | None) -> Tensor:
    """Slot of every task in `task`."""
    if table is not None:
        return table.to(torch.int64)[task]
    return torch.zeros_like(task) if slots == 1 else task
