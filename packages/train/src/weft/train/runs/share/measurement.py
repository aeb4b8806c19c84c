"""Measuring: gradients and lookahead affinity of tasks on independent batches, at the weights that all of them share.

Lookahead affinity of task `i` onto task `j` is

    Z_ij = 1 - L_j(θ - η_i g_i) / L_j(θ)

that is, by which share a step for `i` lowers the loss of `j`.

Source: Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning", eq. 1 (arXiv 2109.04617);
the authors' code (google-research, `tag/taskonomy/tag.patch`, `train_batch`) divides it by the learning rate as well.
Differences: the step is taken along the mean gradient of all batches and the losses are of other, independent ones, so
that `Z_ii` is not flattered by the rows it learned; and `η_i` makes every step worth a tenth of Adam's first one (see
`Steps`), so that tasks of large gradients do not seem to have more to say. It is a mean over batches, with its standard
error, given the directions of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.adapted.bank import store_of
from weft.train.processes import ONE, Processes
from weft.train.runs.share.agreement import Floats, Products
from weft.train.runs.share.cells import Cell
from weft.train.runs.share.gradients import Gradients, Steps

Draw = Callable[[int], Sequence[Any]]
Losses = Callable[[Any], tuple[Tensor, Sequence[str]]]


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        tasks: The tasks.
        cells: The cells.
        products: Inner products of the tasks' gradients in each cell.
        affinity: `Z_ij` on every batch that was looked ahead to, shape `(looks, tasks, tasks)`.
        batches: Number of batches that gave gradients.
    """

    tasks: tuple[str, ...]
    cells: tuple[Cell, ...]
    products: tuple[Products, ...]
    affinity: Floats
    batches: int


class Measuring:
    """Takes batch after batch.

    Args:
        model: A model in which every task has its own slot, all with the values of the shared weight.
        cells: Its cells.
        draw: Number of a batch to the pieces it is passed through the model in: one of rows of all tasks, or one for
            each task. Batches are independent of one another.
        losses: A piece to the losses of its rows and their tasks.
        batches: Number of batches that give gradients.
        looks: Number of further batches on which lookahead losses are taken.
        rate: The learning rate, which lookahead steps go by.
        processes: The processes, which share the batches.
    """

    def __init__(
        self,
        model: nn.Module,
        cells: Sequence[Cell],
        draw: Draw,
        losses: Losses,
        *,
        batches: int,
        looks: int = 8,
        rate: float = 1e-3,
        processes: Processes = ONE,
    ) -> None:
        self.model, self.draw, self.losses, self.processes = model, draw, losses, processes
        self.tasks: tuple[str, ...] = store_of(model).tasks
        self.batches, self.looks, self.rate, self.done = batches, looks, rate, 0
        self.gradients = Gradients(cells, len(self.tasks), batches, next(model.parameters()).device)
        self.affinity = torch.zeros(looks, len(self.tasks), len(self.tasks), dtype=torch.float64)

    @property
    def total(self) -> int:
        """Batches in all."""
        return self.batches + self.looks

    def run(self, after: Callable[[int], None] = lambda done: None) -> None:
        """Take all batches that are left, in evaluation mode, so that nothing is dropped at random.

        Args:
            after: Called with how many batches are done.
        """
        training = self.model.training
        self.model.eval()
        try:
            self._until(self.batches, self._take, after)
            self.model.zero_grad(set_to_none=True)
            sums = [self.processes.sum(total.clone()) for total in self.gradients.sums]
            steps = Steps(self.model, self.gradients.cells, sums, self.rate)
            self._until(self.total, lambda batch: self._look_ahead(steps, batch), after)
        finally:
            self.model.zero_grad(set_to_none=True)
            self.model.train(training)

    def _until(self, end: int, take: Callable[[int], None], after: Callable[[int], None]) -> None:
        """Go on to a batch, and take those that are for this process."""
        while self.done < end:
            if self.done % self.processes.size == self.processes.rank:
                take(self.done)
            self.done += 1
            after(self.done)

    def measured(self) -> Measurement:
        """What all processes measured together."""
        affinity = self.processes.sum(self.affinity.to(self.processes.device)).cpu()
        return Measurement(
            self.tasks,
            tuple(self.gradients.cells),
            tuple(self.gradients.gathered(self.processes)),
            affinity.numpy(),
            self.batches,
        )

    def state(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        return {**self.gradients.state(), "affinity": self.affinity, "done": torch.tensor(self.done)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            ValueError: It gave something else.
        """
        done = int(state["done"])
        if not 0 <= done <= self.total:
            raise ValueError(f"{done} of {self.total} batches are done")
        self.gradients.load(state)
        self.affinity.copy_(state["affinity"])
        self.done = done

    def _take(self, batch: int) -> None:
        self.model.zero_grad(set_to_none=True)
        for piece in self.draw(batch):
            sums, counts = self._by_task(*self.losses(piece))
            (sums / counts.clamp_min(1)).sum().backward()
        self.gradients.add(self.model, batch)

    def _by_task(self, losses: Tensor, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sum of the losses of each task, and number of its rows."""
        ids = torch.tensor([self.tasks.index(task) for task in tasks], device=losses.device)
        zeros = losses.new_zeros(len(self.tasks))
        return zeros.index_add(0, ids, losses), zeros.index_add(0, ids, torch.ones_like(losses))

    @torch.no_grad()
    def _look_ahead(self, steps: Steps, batch: int) -> None:
        """`Z_ij` along the mean gradients, on a batch that gave none."""
        pieces = list(self.draw(batch))
        before = self._mean_losses(pieces)
        for task in range(len(self.tasks)):
            steps.to(task)
            self.affinity[batch - self.batches, task] = 1 - self._mean_losses(pieces) / before
        steps.back()

    def _mean_losses(self, pieces: Sequence[Any]) -> Tensor:
        sums, counts = zip(*(self._by_task(*self.losses(piece)) for piece in pieces), strict=True)
        total: Tensor = torch.stack(sums).sum(dim=0) / torch.stack(counts).sum(dim=0)
        return total
