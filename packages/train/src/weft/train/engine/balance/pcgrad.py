"""PCGrad: where the gradients of two tasks conflict, each loses the part that points against the other.

    g_i ← g_i - (g_i · g_j / |g_j|²) g_j    if g_i · g_j < 0, for every other task j in random order; then Σ_i g_i

Source: Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv 2001.06782), algorithm 1. Difference: two
tasks are compared, and changed, in the weights that both use; a slot of one task alone has nothing to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.sharing import SHARED, tasks_of

Gradients = list[Tensor | None]


class PCGrad:
    """Collects the gradients of each task until a step, and combines them.

    Args:
        model: The adapted model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.by_task: dict[str, Gradients] = {}
        self.steps = 0

    def take(self, losses: Tensor, tasks: Sequence[str], scale: float) -> None:
        """Add the gradients of a batch, separately for each of its tasks.

        Args:
            losses: Losses of its rows, shape `(rows,)`.
            tasks: Task of each row.
            scale: What the sum of all rows' losses is multiplied by.
        """
        values = [value for value, _ in self._trained()]
        present = list(dict.fromkeys(tasks))
        for task in present:
            rows = torch.tensor([own == task for own in tasks], device=losses.device)
            found = torch.autograd.grad(
                losses[rows].sum() * scale, values, retain_graph=task != present[-1], allow_unused=True
            )
            before = self.by_task.get(task)
            self.by_task[task] = list(found) if before is None else list(map(_sum, before, found))

    def finish(self) -> None:
        """Set the combined gradient of every weight, and clear those of the tasks."""
        trained = self._trained()
        order = torch.Generator().manual_seed(self.steps)
        tasks, self.steps = list(self.by_task), self.steps + 1
        joined: Gradients = [None] * len(trained)
        for task in tasks:
            own = [None if one is None else one.clone() for one in self.by_task[task]]
            for place in torch.randperm(len(tasks), generator=order).tolist():
                other = tasks[place]
                if other != task:
                    used = [users is None or {task, other} <= users for _, users in trained]
                    _project(own, self.by_task[other], used)
            joined = list(map(_sum, joined, own))
        for (value, _), gradient in zip(trained, joined, strict=True):
            value.grad = gradient if value.grad is None else _sum(value.grad, gradient)
        self.by_task = {}

    def _trained(self) -> list[tuple[nn.Parameter, set[str] | None]]:
        """Every trained parameter, and the tasks that use it, None for all."""
        slots = {id(value): slot for _, slot, value in self.model.weft.slots()}
        users = {key: None if slot == SHARED else set(tasks_of(slot)) for key, slot in slots.items()}
        return [(value, users.get(id(value))) for value in self.model.parameters() if value.requires_grad]


def _project(own: Gradients, other: Gradients, used: Sequence[bool]) -> None:
    """Remove from a gradient its component against another, in place, in the weights that both use."""
    pairs = [
        (a, b)
        for a, b, both in zip(own, other, used, strict=True)
        if both and a is not None and b is not None
    ]
    if not pairs:
        return
    product = torch.stack([(a.double() * b.double()).sum() for a, b in pairs]).sum()
    square = torch.stack([(b.double() ** 2).sum() for _, b in pairs]).sum()
    factor = torch.where((product < 0) & (square > 0), product / square, torch.zeros_like(product))
    for a, b in pairs:
        a -= factor.to(a.dtype) * b


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
