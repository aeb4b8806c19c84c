"""Uncertainty weights: each task's loss is weighted by a learned variance.

    loss = Σ_t exp(-s_t) L_t + s_t / 2,        s_t = log σ_t²

Source: Kendall et al. 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics"
(arXiv 1705.07115), in the form for classification, `L / σ² + log σ`. The authors' code, the notebooks of
yaringal/multi-task-learning-example, shows regression alone, as `exp(-s) |y - f|² + s`, twice the paper's form for it.
Difference: `s_t` takes plain gradient steps of the recipe's learning rate, with each batch that has rows of the task,
beside the optimiser of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weft.train.processes import ONE, Processes


class Uncertainty(nn.Module):
    """Weights the losses of rows; `s_t` learns at the given rate, from the rows of all processes."""

    log_variances: Tensor

    def __init__(self, tasks: Sequence[str], rate: float, processes: Processes = ONE) -> None:
        super().__init__()
        self.tasks, self.rate, self.processes = tuple(tasks), rate, processes
        self.register_buffer("log_variances", torch.zeros(len(self.tasks), dtype=torch.float64))

    def weighted(self, losses: Tensor, tasks: Sequence[str]) -> Tensor:
        """The losses of rows, shape `(rows,)`, times `exp(-s_t)` of their tasks; then `s_t` takes a step."""
        self.to(losses.device)
        ids = torch.tensor([self.tasks.index(task) for task in tasks], device=losses.device)
        weights = torch.exp(-self.log_variances)
        result = losses * weights.to(losses.dtype).index_select(0, ids)
        values = losses.detach().double()
        sums = torch.zeros(2, len(self.tasks), dtype=torch.float64, device=losses.device)
        sums[0].index_add_(0, ids, values)
        sums[1].index_add_(0, ids, torch.ones_like(values))
        total, count = self.processes.sum(sums)
        gradient = 0.5 - weights * total / count.clamp_min(1)
        self.log_variances -= self.rate * torch.where(count > 0, gradient, torch.zeros_like(gradient))
        return result
