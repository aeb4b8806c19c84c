"""Rows grouped into runs that share a slot: how the reference multiplies by per-task weights on the CPU.

Rows are visited by task, and identity rows are left out. Every product is then one library call per run of equal
slots on a contiguous slice, so the cost hardly depends on the number of tasks. The run boundaries are read on the
host, which costs nothing for tensors that live there; other devices use `tiles.TiledRows`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weft.kernels.bottleneck.call import Call
from weft.kernels.errors import KernelValueError

# Tokens of a row; moving such rows next to those of their task costs more than a product of its own.
IN_PLACE = 32


@dataclass
class Runs:
    """Tokens of every run, in visiting order, and the slot that the run uses."""

    tokens: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def extend(self, tokens: int, slot: int) -> None:
        """Add a run at the end; it becomes one with the last run if they share the slot."""
        if not tokens:
            return
        if self.slots and self.slots[-1] == slot:
            self.tokens[-1] += tokens
        else:
            self.tokens.append(tokens)
            self.slots.append(slot)


@dataclass(frozen=True)
class SegmentedRows:
    """Tokens in visiting order, and the runs of equal slots for the down and for the up part."""

    rows: int
    length: int
    order: Tensor | None
    tasks: Tensor | None
    down_runs: Runs
    up_runs: Runs

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

    def project(
        self, x: Tensor, weight: Tensor, part: str, bias: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        """``x[t] @ weight[slot(t)] + bias[slot(t)] + onto[t]``: (tokens, in) by (slots, in, out) → (tokens, out)."""
        out = x.new_empty(x.shape[0], weight.shape[2])
        runs = self._runs(part)
        # One call cuts all runs: thousands of small views would cost as much as the products.
        weights, biases = weight.unbind(), None if bias is None else bias.unbind()
        added = itertools.repeat(None) if onto is None else onto.split(runs.tokens)
        for slot, own, result, more in zip(
            runs.slots, x.split(runs.tokens), out.split(runs.tokens), added, strict=onto is not None
        ):
            if biases is None:
                torch.mm(own, weights[slot], out=result)
            else:
                torch.addmm(biases[slot], own, weights[slot], out=result)
            if more is not None:
                result.add_(more)  # here, while the run is in the cache
        return out

    def project_onto(
        self, base: Tensor | None, x: Tensor, weight: Tensor, part: str, bias: Tensor | None = None
    ) -> Tensor:
        """``add_to(base, project(x, weight, part, bias))``."""
        if base is None or self.order is not None or base.dtype != x.dtype:
            return self.add_to(base, self.project(x, weight, part, bias))
        flat = base.reshape(x.shape[0], weight.shape[2])
        return self.project(x, weight, part, bias, flat).view(self.rows, self.length, weight.shape[2])

    def outer(self, a: Tensor, b: Tensor, weight: Tensor, part: str, sums: Tensor | None = None) -> Tensor:
        """``Σ a[t]ᵀ b[t]`` per slot, shaped (slots of `weight`, a width, b width); zero for unused slots.

        `sums`, zeros of shape (slots, b width), gets ``Σ b[t]`` per slot.
        """
        out = a.new_empty(weight.shape[0], a.shape[1], b.shape[1])
        runs = self._runs(part)
        results, totals = out.unbind(), () if sums is None else sums.unbind()
        filled: set[int] = set()
        for slot, left, right in zip(
            runs.slots, a.t().split(runs.tokens, 1), b.split(runs.tokens), strict=True
        ):
            if slot in filled:
                results[slot].addmm_(left, right)
            else:
                torch.mm(left, right, out=results[slot])
            if totals:
                totals[slot].add_(right.sum(0))
            filled.add(slot)
        for slot in set(range(len(results))) - filled:
            results[slot].zero_()
        return out

    def sum_by_slot(self, values: Tensor, slots: int, part: str) -> Tensor:
        """(tokens, width) summed over the tokens of each slot: (slots, width)."""
        out = values.new_zeros(slots, values.shape[1])
        runs, totals = self._runs(part), out.unbind()
        for slot, own in zip(runs.slots, values.split(runs.tokens), strict=True):
            totals[slot].add_(own.sum(0))
        return out

    def _runs(self, part: str) -> Runs:
        return self.down_runs if part == "down" else self.up_runs


def segment_rows(call: Call) -> SegmentedRows:
    """Order the rows of a call and find the runs.

    Raises:
        KernelValueError: a table names a slot that is not there.
    """
    rows, length, ids = call.rows, call.length, call.ids
    if ids is None or call.bounds is None:
        runs = Runs()
        runs.extend(rows * length, 0)
        return SegmentedRows(rows, length, None, None, runs, runs)
    starts = call.bounds.tolist()
    counts = [(last - first) * length for first, last in itertools.pairwise(starts)]
    by_task = list(enumerate(counts))
    down, up = _runs(call, "down", by_task), _runs(call, "up", by_task)
    order, identity = call.order, starts[0]
    if order is not None and not identity and length >= IN_PLACE:
        as_given = [(task, length) for task in ids.tolist()]
        down, up = (_runs(call, part, as_given) for part in ("down", "up"))
        return SegmentedRows(rows, length, None, ids, down, up)
    if order is not None and not bool((order[1:] < order[:-1]).any()):
        order = None  # sorted as they are: views serve
    if len(down.slots) <= 1 and len(up.slots) <= 1:
        # One run: the rows may stay where they are.
        order = (ids >= 0).nonzero().flatten() if identity else None
    elif order is not None:
        order = order[identity:]
    elif identity:
        order = torch.arange(identity, rows)
    tasks = ids if order is None else ids.index_select(0, order)
    return SegmentedRows(rows, length, order, tasks, down, up)


def _runs(call: Call, part: str, visited: list[tuple[int, int]]) -> Runs:
    """Runs of a part for tasks and numbers of tokens, as they are visited."""
    runs, slots = Runs(), _slots_of_tasks(call, part)
    for task, count in visited:
        runs.extend(count, slots[task])
    return runs


def _slots_of_tasks(call: Call, part: str) -> list[int]:
    """Slot of every task, on the host."""
    table, slots = call.table(part), call.slots(part)
    if table is None:
        return [0] * call.tasks if slots == 1 else list(range(call.tasks))
    chosen: list[int] = table.tolist()
    wrong = [slot for slot in chosen if not 0 <= slot < slots]
    if wrong:
        raise KernelValueError(
            f"`{part}_slots` must hold slots of `{part}` (0 to {slots - 1}), but holds {wrong[0]}. Check the "
            "sharing map."
        )
    return chosen
