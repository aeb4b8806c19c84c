"""Rows sorted by task, once for every operation that reads the same batch.

Sorting says where each task's rows are; that is all a grouped product needs to know. It is done once per batch, not
once per site and pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.checks import check_ends, check_integer, check_is_tensor, check_rank, check_tensors
from weft.kernels.errors import KernelValueError


class RoutedRows(NamedTuple):
    """Whose each row of a batch is, and where each task's rows are when sorted; made by `route_rows`.

    Attributes:
        ids: task of every row, -1 for identity, int64, shape (rows,).
        order: row at every place of the sorted rows, int64, shape (rows,); identity rows come first. None where
            the rows are known to be sorted as they are.
        bounds: place of every task's first row, and the end of the last one, int64, shape (tasks + 1,); what comes
            before the first is identity.
    """

    ids: Tensor
    order: Tensor | None
    bounds: Tensor

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return self.bounds.shape[0] - 1


def route_rows(task_ids: Tensor, tasks: int) -> RoutedRows:
    """Sort the rows of a batch by task.

    Ids are checked where they are; nothing waits for a device.

    Args:
        task_ids: task of every row, -1 for identity, int32 or int64, shape (rows,).
        tasks: number of tasks, at least 1.

    Raises:
        KernelTypeError: `task_ids` is no tensor of integers.
        KernelShapeError: it is not one-dimensional.
        KernelValueError: an id is below -1 or no task.

    Example:
        >>> route_rows(torch.tensor([1, -1, 0, 1]), 2).bounds
        tensor([1, 2, 4])
    """
    check_is_tensor("task_ids", task_ids)
    check_integer({"task_ids": task_ids})
    check_rank("task_ids", task_ids, 1, "(rows,)")
    ids = task_ids.to(torch.int64).contiguous()
    return RoutedRows(ids, *torch.ops.weft.sort_rows(ids, tasks))


def route_offsets(offsets: Tensor, rows: int) -> RoutedRows:
    """The same for rows that are sorted by task.

    Args:
        offsets: end of every task's rows, int32 or int64, shape (tasks,).
        rows: number of rows.

    Raises:
        KernelTypeError: `offsets` is no tensor of integers.
        KernelShapeError: it is not one-dimensional.
        KernelValueError: it is not sorted, or does not end at `rows`.
    """
    check_tensors(offsets, {"offsets": offsets})
    check_integer({"offsets": offsets})
    check_rank("offsets", offsets, 1, "(tasks,)")
    ends = offsets.to(torch.int64)
    if ends.device.type == "cpu" and not torch.compiler.is_compiling():
        check_ends(ends, rows, "rows", "task")
    ids = torch.searchsorted(ends, torch.arange(rows, device=ends.device), right=True)
    return RoutedRows(ids, None, torch.cat((ends.new_zeros(1), ends)))


def _sort(ids: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    if ids.device.type != "cpu":
        torch._assert_async(((ids >= -1) & (ids < tasks)).all(), "`task_ids` must lie in [-1, tasks)")
    elif ids.numel():
        lowest, highest = (int(v) for v in torch.aminmax(ids))
        if lowest < -1:
            raise KernelValueError(
                f"`task_ids` must be -1 (identity) or a task, but holds {lowest}. Use -1 for no adapter."
            )
        if highest >= tasks:
            raise KernelValueError(
                f"`task_ids` must be below the number of tasks ({tasks}), but holds {highest}. Count tasks from 0."
            )
    ordered, order = torch.sort(ids, stable=True)
    return order, torch.searchsorted(ordered, torch.arange(tasks + 1, device=ids.device))


def _sort_fake(ids: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(ids), ids.new_empty(tasks + 1)


registration.define("sort_rows", "(Tensor ids, int tasks) -> (Tensor, Tensor)", _sort, _sort_fake)
