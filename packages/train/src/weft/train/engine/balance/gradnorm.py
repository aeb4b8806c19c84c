"""GradNorm: each task's loss is weighted so that its gradient is as long as the others', longer where it lags behind.

    loss = Σ_i w_i L_i,   G_i = w_i |∇_W L_i|,   r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))

and `w` takes a step down the gradient of `Σ_i |G_i - mean_j(G_j) r_i^α|`, the second term being held constant, which is
`sign(G_i - mean(G) r_i^α) |∇_W L_i|` for `w_i`; then the weights are scaled to have a mean of 1.

Source: Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks"
(arXiv 1711.02257), equations 1 and 2 and algorithm 1; Adam with a rate of 0.025 for `w`, and `α` of 1.5, are those of
its experiments on NYUv2. The authors published no code; the equations are those of LucasBoTang/GradNorm and
AvivNavon/AuxiLearn (`experiments/weight_methods.py`). Differences: `W` are all weights that all tasks share, not the
last shared layer alone. `L_i` is the mean over the task's rows of a step, so how often a task is drawn stays the
recipe's. Tasks without rows in a step keep their weights. No weight falls below 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weft.train.engine.balance.by_task import ByTask, Gradients, added
from weft.train.errors import RunError
from weft.train.processes import ONE, Processes

ALPHA = 1.5
RATE = 0.025
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_LEAST = 0.01
_TINY = torch.finfo(torch.float64).tiny  # what stands in the place of a loss of 0 below a fraction


class GradNorm(ByTask):
    """Combines the gradients of tasks by weights.

    Args:
        alpha: How strongly tasks that lag behind are favoured; 0 makes all gradients equally long.

    Raises:
        RunError: If no trained weight is shared by all tasks.
    """

    weights: Tensor
    first_losses: Tensor
    moments: Tensor
    steps: Tensor

    def __init__(
        self, model: Any, tasks: Sequence[str], processes: Processes = ONE, alpha: float = ALPHA
    ) -> None:
        super().__init__(model, tasks, processes)
        if all(users is not None for _, users in self._trained()):
            raise RunError(
                "`training.balance` must not be 'gradnorm' where no trained weight is shared by all tasks, for it "
                "compares their gradients there. Share a part, or take 'uncertainty'."
            )
        self.alpha, count = alpha, len(self.tasks)
        self.register_buffer("weights", torch.ones(count, dtype=torch.float64))
        self.register_buffer("first_losses", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(2, count, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(count, dtype=torch.float64))

    def combined(self, found: dict[str, Gradients], users: Sequence[set[str] | None]) -> Gradients:
        """The weighted sum of the gradients; then the weights take a step. See `ByTask.combined`."""
        present = torch.tensor([self.tasks.index(task) for task in found])
        norms = torch.stack([_norm(own, users) for own in found.values()])
        # The gradients are those of sums over rows; those of the mean loss do not depend on how many rows a task has.
        norms = norms * self.rows.sum() / self.rows[present]
        losses = self.losses[present] / self.rows[present]
        combined: Gradients = [None] * len(users)
        for place, own in zip(present.tolist(), found.values(), strict=True):
            weight = float(self.weights[place])
            combined = added(combined, [None if one is None else weight * one for one in own])
        self._step(present, norms, losses)
        return combined

    def _step(self, present: Tensor, norms: Tensor, losses: Tensor) -> None:
        """A step of the weights of the tasks that have rows.

        Args:
            present: Their places, shape `(tasks,)`.
            norms: Length of the gradient of each one's mean loss, shape `(tasks,)`.
            losses: Their mean losses, shape `(tasks,)`.
        """
        known = self.first_losses[present]
        self.first_losses[present] = torch.where(known > 0, known, losses)
        weights, steps = self.weights[present], self.steps[present] + 1
        left = losses / self.first_losses[present].clamp_min(_TINY)
        lengths = weights * norms
        target = lengths.mean() * (left / left.mean().clamp_min(_TINY)) ** self.alpha
        gradient = torch.sign(lengths - target) * norms
        first, second = self.moments[:, present]
        first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
        second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient**2
        direction = first / (1 - _BETAS[0] ** steps)
        length = (second / (1 - _BETAS[1] ** steps)).sqrt() + _EPSILON
        moved = (weights - RATE * direction / length).clamp_min(_LEAST)
        self.weights[present] = moved * weights.sum() / moved.sum()
        self.moments[:, present], self.steps[present] = torch.stack([first, second]), steps


def _norm(own: Gradients, users: Sequence[set[str] | None]) -> Tensor:
    """Length of a gradient in the weights that all tasks share; 0 where it reaches none of them."""
    squares = [
        torch.zeros((), dtype=torch.float64),
        *(
            (one.double() ** 2).sum().cpu()
            for one, by in zip(own, users, strict=True)
            if by is None and one is not None
        ),
    ]
    return torch.stack(squares).sum().sqrt()
