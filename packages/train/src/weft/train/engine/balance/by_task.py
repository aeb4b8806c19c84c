"""The gradients of each task since the last step, over all small batches and processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.sharing import SHARED, tasks_of
from weft.train.processes import ONE, Processes

Gradients = list[Tensor | None]


class ByTask(nn.Module, ABC):
    """Collects the gradients of each task of an adapted model until a step; subclasses combine them."""

    def __init__(self, model: Any, tasks: Sequence[str], processes: Processes = ONE) -> None:
        super().__init__()
        self._held = (model,)  # in a tuple, for its weights are no state of this
        self.tasks, self.processes = tuple(tasks), processes
        self.by_task: dict[str, Gradients] = {}
        self.rows = torch.zeros(len(self.tasks), dtype=torch.float64)
        self.losses = torch.zeros(len(self.tasks), dtype=torch.float64)

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
            own = losses[rows]
            found = torch.autograd.grad(
                own.sum() * scale, values, retain_graph=task != present[-1], allow_unused=True
            )
            before = self.by_task.get(task)
            self.by_task[task] = list(found) if before is None else list(map(_sum, before, found))
            place = self.tasks.index(task)
            self.rows[place] += len(own)
            self.losses[place] += own.detach().double().sum().cpu()

    def finish(self) -> None:
        """Set the combined gradient of every weight, and clear those of the tasks."""
        trained, found = self._trained(), self._gathered()
        combined = self.combined(found, [users for _, users in trained])
        for (value, _), gradient in zip(trained, combined, strict=True):
            value.grad = gradient if value.grad is None else _sum(value.grad, gradient)
        self.by_task = {}
        self.rows.zero_()
        self.losses.zero_()

    @abstractmethod
    def combined(self, found: dict[str, Gradients], users: Sequence[set[str] | None]) -> Gradients:
        """The gradient that every trained weight gets.

        Args:
            found: Task to its gradients, in the order of tasks.
            users: The tasks that use each weight, None for all.
        """

    def _gathered(self) -> dict[str, Gradients]:
        """The gradients of all processes; a weight has one where any process has."""
        if self.processes.size == 1:
            return {task: self.by_task[task] for task in self.tasks if task in self.by_task}
        values = [value for value, _ in self._trained()]
        device = self.processes.device
        there = torch.zeros(len(self.tasks), len(values), device=device)
        for task, own in self.by_task.items():
            there[self.tasks.index(task)] = torch.tensor([float(one is not None) for one in own])
        self.processes.sum(there)
        numbers = self.processes.sum(torch.stack([self.rows, self.losses]).to(device)).cpu()
        self.rows, self.losses = numbers.unbind()
        found = {}
        for task, used in zip(self.tasks, there.bool().tolist(), strict=True):
            if any(used):
                own = self.by_task.get(task) or [None] * len(values)
                found[task] = self._summed(own, values, used)
        return found

    def _summed(self, own: Gradients, values: Sequence[Tensor], used: Sequence[bool]) -> Gradients:
        parts = [
            torch.zeros_like(value) if one is None else one
            for one, value, is_used in zip(own, values, used, strict=True)
            if is_used
        ]
        flat = self.processes.sum(torch.cat([part.float().flatten() for part in parts]))
        pieces = iter(
            piece.view_as(part).to(part.dtype)
            for piece, part in zip(flat.split([part.numel() for part in parts]), parts, strict=True)
        )
        return [next(pieces) if is_used else None for is_used in used]

    def _trained(self) -> list[tuple[nn.Parameter, set[str] | None]]:
        """Every trained parameter, and the tasks that use it, None for all."""
        model = self._held[0]
        slots = {id(value): slot for _, slot, value in model.weft.slots()}
        users = {key: None if slot == SHARED else set(tasks_of(slot)) for key, slot in slots.items()}
        return [(value, users.get(id(value))) for value in model.parameters() if value.requires_grad]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def added(one: Gradients, other: Gradients) -> Gradients:
    """The sum of two gradients of all weights."""
    return list(map(_sum, one, other))
