"""Rows grouped into runs that share a slot: how the reference multiplies by per-task weights on the CPU.

Rows are ordered so that rows with the same (down slot, up slot) lie next to each other and identity rows are
left out. Every product is then one library call per run on a contiguous slice, so the cost hardly depends on
the number of tasks. The run boundaries are read on the host, which costs nothing for tensors that live there;
other devices use `tiles.TiledRows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weft.kernels.errors import KernelValueError

Run = tuple[int, int, int]  # start token, end token, slot


@dataclass(frozen=True)
class SegmentedRows:
    """Tokens in visiting order, and the runs of equal slots for the down and for the up part."""

    rows: int
    length: int
    order: Tensor | None
    tasks: Tensor | None
    down_runs: list[Run]
    up_runs: list[Run]

    @property
    def tokens(self) -> int:
        """Number of tokens visited (identity rows excluded)."""
        return (self.rows if self.order is None else self.order.numel()) * self.length

    def gather(self, x: Tensor) -> Tensor:
        """(rows, length, width) → (tokens, width) in visiting order; a view where nothing moves."""
        visited = x if self.order is None else x.index_select(0, self.order)
        return visited.reshape(self.tokens, x.shape[-1])

    def add_to(self, base: Tensor | None, values: Tensor) -> Tensor:
        """Back to (rows, length, width), plus `base`; rows not visited equal `base`, or zero without one.

        May overwrite `values`.
        """
        width = values.shape[-1]
        if self.order is None:
            shaped = values.view(self.rows, self.length, width)
            if base is None:
                return shaped
            return shaped.add_(base) if base.dtype == values.dtype else base + shaped
        shaped = values.view(-1, self.length, width)
        if base is None:
            whole = values.new_zeros(self.rows, self.length, width)
            return whole.index_copy_(0, self.order, shaped)
        dtype = torch.promote_types(base.dtype, values.dtype)
        whole = base.to(dtype, copy=True, memory_format=torch.contiguous_format)
        return whole.index_add_(0, self.order, shaped.to(dtype))

    def token_indices(self, device: torch.device) -> Tensor:
        """Original token index of every visited token, int64, shape (tokens,)."""
        within = torch.arange(self.length, device=device)
        rows = torch.arange(self.rows, device=device) if self.order is None else self.order
        return (rows.unsqueeze(1) * self.length + within).reshape(-1)

    def per_token(self, table: Tensor) -> Tensor:
        """Rows of a (tasks or 1, width) table for every visited token, or (1, width) if shared."""
        if self.tasks is None or table.shape[0] == 1:
            return table[:1]
        return table.index_select(0, self.tasks).repeat_interleave(self.length, dim=0)

    def sum_by_task(self, values: Tensor, tasks: int) -> Tensor:
        """(tokens, width) summed over the tokens of each task: (tasks, width); inverse of `per_token`."""
        total = values.new_zeros(tasks, values.shape[-1])
        if self.tasks is None or tasks == 1:
            total[0] = values.sum(0)
            return total
        by_row = values.view(-1, self.length, values.shape[-1]).sum(1)
        return total.index_add_(0, self.tasks, by_row)

    def project(self, x: Tensor, weight: Tensor, part: str, bias: Tensor | None = None) -> Tensor:
        """``x[t] @ weight[slot(t)] + bias[slot(t)]``: (tokens, in) by (slots, in, out) → (tokens, out)."""
        out = x.new_empty(x.shape[0], weight.shape[2])
        for start, end, slot in self._runs(part):
            if bias is None:
                torch.mm(x[start:end], weight[slot], out=out[start:end])
            else:
                torch.addmm(bias[slot], x[start:end], weight[slot], out=out[start:end])
        return out

    def outer(self, a: Tensor, b: Tensor, weight: Tensor, part: str) -> Tensor:
        """``Σ a[t]ᵀ b[t]`` per slot, shaped (slots of `weight`, a width, b width); zero for unused slots."""
        out = a.new_zeros(weight.shape[0], a.shape[1], b.shape[1])
        for start, end, slot in self._runs(part):
            out[slot].addmm_(a[start:end].t(), b[start:end])
        return out

    def sum_by_slot(self, values: Tensor, slots: int, part: str) -> Tensor:
        """(tokens, width) summed over the tokens of each slot: (slots, width)."""
        out = values.new_zeros(slots, values.shape[1])
        for start, end, slot in self._runs(part):
            out[slot] += values[start:end].sum(0)
        return out

    def _runs(self, part: str) -> list[Run]:
        return self.down_runs if part == "down" else self.up_runs


def segment_rows(
    rows: int,
    length: int,
    slots: tuple[int, int],
    task_ids: Tensor | None,
    offsets: Tensor | None,
    down_slots: Tensor | None,
    up_slots: Tensor | None,
) -> SegmentedRows:
    """Order the rows and find the runs.

    Args:
        rows: number of rows.
        length: tokens per row.
        slots: numbers of down and up slots.
        task_ids: task of every row, -1 for identity, shape (rows,); exclusive with `offsets`.
        offsets: end of every task's rows, sorted, shape (tasks,).
        down_slots: down slot of every task, shape (tasks,), or None for task t = slot t.
        up_slots: the same for the up part.

    Raises:
        KernelValueError: an id or slot is out of range, or `offsets` is not sorted or does not end at `rows`.
    """
    if task_ids is None and offsets is None:
        run = [(0, rows * length, 0)] if rows * length else []
        return SegmentedRows(rows, length, None, None, run, run)
    ids = _ids_from_offsets(offsets, rows) if task_ids is None else task_ids.to(torch.int64)
    if rows == 0:
        return SegmentedRows(0, length, None, ids, [], [])
    lowest, highest = (int(v) for v in torch.aminmax(ids))
    down_ids = _slot_ids("down", ids, highest, slots[0], down_slots)
    up_ids = _slot_ids("up", ids, highest, slots[1], up_slots)
    if lowest < -1:
        raise KernelValueError(
            f"`task_ids` must be -1 (identity) or a task, but holds {lowest}. Use -1 for no adapter."
        )
    key = torch.where(ids < 0, -1, down_ids * slots[1] + up_ids)
    order: Tensor | None = None
    if lowest < 0 or bool((key[1:] < key[:-1]).any()):
        order = torch.argsort(key, stable=True)
        order = order[int((ids < 0).sum()) :]
        ids, key = ids.index_select(0, order), key.index_select(0, order)
    keys, counts = torch.unique_consecutive(key, return_counts=True)
    down_runs: list[Run] = []
    up_runs: list[Run] = []
    start = 0
    for value, count in zip(keys.tolist(), counts.tolist(), strict=True):
        end = start + count * length
        _extend(down_runs, start, end, value // slots[1])
        _extend(up_runs, start, end, value % slots[1])
        start = end
    return SegmentedRows(rows, length, order, ids, down_runs, up_runs)


def _extend(runs: list[Run], start: int, end: int, slot: int) -> None:
    if start == end:
        return
    if runs and runs[-1][2] == slot:
        runs[-1] = (runs[-1][0], end, slot)
    else:
        runs.append((start, end, slot))


def _slot_ids(part: str, ids: Tensor, highest: int, slots: int, table: Tensor | None) -> Tensor:
    tasks = slots if table is None else table.numel()
    if table is None and slots == 1:
        return torch.zeros_like(ids)
    if highest >= tasks:
        raise KernelValueError(
            f"`task_ids` must be below the number of tasks ({tasks} for `{part}`), but holds {highest}. "
            f"Give `{part}` a slot per task, or map tasks to slots with `{part}_slots`."
        )
    if table is None:
        return ids
    low, high = (int(v) for v in torch.aminmax(table))
    if low < 0 or high >= slots:
        raise KernelValueError(
            f"`{part}_slots` must hold slots of `{part}` (0 to {slots - 1}), but holds "
            f"{low if low < 0 else high}. "
            "Check the sharing map."
        )
    return table.to(torch.int64).index_select(0, ids.clamp(min=0))


def _ids_from_offsets(offsets: Tensor | None, rows: int) -> Tensor:
    assert offsets is not None
    ends = offsets.to(torch.int64)
    if ends.numel() == 0 or int(ends[-1]) != rows:
        last = int(ends[-1]) if ends.numel() else "missing"
        raise KernelValueError(
            f"`offsets` must end at the number of rows ({rows}), but its last entry is {last}. "
            "Give the end of every task's rows, without a leading zero."
        )
    if int(ends[0]) < 0 or bool((ends[1:] < ends[:-1]).any()):
        raise KernelValueError(
            f"`offsets` must be sorted and not negative, but is {ends.tolist()}. Sort the rows by task first."
        )
    return torch.searchsorted(ends, torch.arange(rows, device=ends.device), right=True)
