"""PCGrad: where the gradients of two tasks conflict, each loses the part that points against the other.

    g_i ← g_i - (g_i · g_j / |g_j|²) g_j    if g_i · g_j < 0, for every other task j in random order; then Σ_i g_i

Source: Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv 2001.06782), algorithm 1; the projection is
that of the authors' code (tianheyu927/PCGrad, `PCGrad_tf.py`, `proj_grad`), which takes the tasks in a fixed order,
because the result of its shuffle is not used. Difference: two tasks are compared, and changed, in the weights that both
use; a slot of one task alone has nothing to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weft.train.engine.balance.by_task import ByTask, Gradients, added
from weft.train.processes import ONE, Processes


class PCGrad(ByTask):
    """Combines the gradients of tasks without what conflicts."""

    steps: Tensor

    def __init__(self, model: Any, tasks: Sequence[str], processes: Processes = ONE) -> None:
        super().__init__(model, tasks, processes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def combined(self, found: dict[str, Gradients], users: Sequence[set[str] | None]) -> Gradients:
        """The sum of the gradients that are left; see `ByTask.combined`."""
        order = torch.Generator().manual_seed(int(self.steps))
        self.steps += 1
        tasks = list(found)
        combined: Gradients = [None] * len(users)
        for task in tasks:
            own = [None if one is None else one.clone() for one in found[task]]
            for place in torch.randperm(len(tasks), generator=order).tolist():
                other = tasks[place]
                if other != task:
                    _project(own, found[other], [one is None or {task, other} <= one for one in users])
            combined = added(combined, own)
        return combined


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
