"""Gradients of every task in every cell, batch by batch, and the sums that are kept of them.

The model has a slot for each task, and all slots of a tensor hold the same values, those of the weight that all tasks
share. So one backward pass over rows of all tasks leaves each task's gradient of the shared weight in its own slot.

Kept are, per task and cell, the sum of the gradients and, of every batch, a sketch of at most `SKETCH` numbers: random
signs, then sums of every `SKETCH`-th entry. Inner products of sketches are unbiased; they serve standard errors alone.
Where a cell has no more weights than that, the sketch is the gradient itself.

Source: the sketch is the count sketch of Charikar et al. 2002, with buckets in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core import attach, detach
from weft.core.adapted.bank import store_of
from weft.train.processes import ONE, Processes
from weft.train.runs.share.agreement import Products
from weft.train.runs.share.cells import Cell, across_tasks

SKETCH = 2048
_STEP = 0.1


def separate_tasks(model: nn.Module) -> None:
    """Give every task its own slots, in place, with the values that all of them shared."""
    store = store_of(model)
    planned = store.plan
    values = {
        key: bank.slot_of(planned.tasks[0]).detach().clone() for key, bank in store.banks_by_key.items()
    }
    attach(detach(model), across_tasks(planned, shared=False), planned.tasks)
    with torch.no_grad():
        for key, _, slot in store_of(model).slots():
            slot.copy_(values[key])


def gather(model: nn.Module, cell: Cell) -> Tensor:
    """The gradients that are in the slots of a cell, one for each task, shape `(tasks, parameters)`, float32."""
    store = store_of(model)
    rows = []
    for task in store.tasks:
        slots = [store.banks_by_key[key].slot_of(task) for key in cell.banks]
        rows.append(
            torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in slots])
        )
    return torch.stack(rows).float()


class Gradients:
    """What is kept of the gradients.

    Args:
        cells: The cells.
        tasks: Number of tasks.
        batches: Number of batches.
        device: Where the sums are.
        seed: Seed of the sketches' signs.
    """

    def __init__(
        self, cells: Sequence[Cell], tasks: int, batches: int, device: torch.device, seed: int = 0
    ) -> None:
        self.cells, self.seed = list(cells), seed
        self.sums = [torch.zeros(tasks, cell.parameters, device=device) for cell in self.cells]
        self.within = torch.zeros(len(self.cells), tasks, tasks, dtype=torch.float64)
        self.sketches = [
            torch.zeros(batches, tasks, min(SKETCH, cell.parameters), dtype=torch.float32)
            for cell in self.cells
        ]

    def add(self, model: nn.Module, batch: int) -> None:
        """Take the gradients of a batch, which are in the slots of a model."""
        for place, cell in enumerate(self.cells):
            found = gather(model, cell)
            self.sums[place] += found
            exact = found.double()
            self.within[place] += (exact @ exact.T).cpu()
            self.sketches[place][batch] = self._sketch(found, place).cpu()

    def _sketch(self, found: Tensor, place: int) -> Tensor:
        size = found.shape[1]
        if size <= SKETCH:
            return found
        generator = torch.Generator().manual_seed(self.seed + place)
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8).to(found.device)
        signed = torch.nn.functional.pad(found * (2 * signs - 1), (0, -size % SKETCH))
        return signed.view(found.shape[0], -1, SKETCH).sum(dim=1)

    def gathered(self, processes: Processes = ONE) -> list[Products]:
        """The inner products in every cell, over the batches that each of the processes took."""
        found = []
        within = processes.sum(self.within.to(processes.device)).cpu()
        for place, total in enumerate(self.sums):
            exact = processes.sum(total.clone()).double()
            sketches = processes.sum(self.sketches[place].to(processes.device)).cpu()
            found.append(
                Products(
                    (exact @ exact.T).cpu().sub(within[place]).numpy(),
                    Products.of(sketches.double().numpy()).by_batch,
                    (exact**2).sum(dim=1).cpu().numpy(),
                )
            )
        return found

    def state(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        named = {"within": self.within}
        for place in range(len(self.cells)):
            named[f"sum.{place}"] = self.sums[place].cpu()
            named[f"sketch.{place}"] = self.sketches[place]
        return named

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.within.copy_(state["within"])
        for place in range(len(self.cells)):
            self.sums[place].copy_(state[f"sum.{place}"])
            self.sketches[place].copy_(state[f"sketch.{place}"])


class Steps:
    """Steps of all slots away from the value that they share, and back.

    Args:
        model: A model in which every task has its own slot.
        cells: Its cells.
        sums: Sum of the gradients of each task in each cell, shape `(tasks, parameters)`.
        rate: The learning rate.
    """

    def __init__(self, model: nn.Module, cells: Sequence[Cell], sums: Sequence[Tensor], rate: float) -> None:
        self._store, self._sums, self._rate = store_of(model), sums, rate
        self._keys = [cell.banks for cell in cells]
        first = self._store.tasks[0]
        self._start = {
            key: self._store.banks_by_key[key].slot_of(first).detach().clone()
            for keys in self._keys
            for key in keys
        }

    @torch.no_grad()
    def to(self, task: int) -> None:
        """Put all slots where a step for one task leads, a tenth as long as one of Adam is worth.

        Adam's first step moves every weight by `rate` against its gradient `g`, which lowers the loss by `rate · |g|_1`
        to first order. The step against `g` itself that lowers it as much is `rate · |g|_1 / |g|²` times `g`; a tenth
        of it is short enough for the loss to be nearly straight along it.
        """
        squares = sum(float((total[task].double() ** 2).sum()) for total in self._sums)
        sizes = sum(float(total[task].double().abs().sum()) for total in self._sums)
        length = _STEP * self._rate * sizes / squares if squares > 0 else 0.0
        for keys, total in zip(self._keys, self._sums, strict=True):
            parts = total[task].split([self._start[key].numel() for key in keys])
            for key, part in zip(keys, parts, strict=True):
                self._fill(key, self._start[key] - length * part.view_as(self._start[key]))

    @torch.no_grad()
    def back(self) -> None:
        """Put all slots back."""
        for key, value in self._start.items():
            self._fill(key, value)

    def _fill(self, key: str, value: Tensor) -> None:
        for slot in self._store.banks_by_key[key].parameters():
            slot.copy_(value)
