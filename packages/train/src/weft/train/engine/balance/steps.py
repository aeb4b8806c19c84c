"""How a trainer's steps balance tasks: the losses of rows are weighted, or each task has gradients of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weft.train.engine.balance.by_task import ByTask
from weft.train.engine.balance.uncertainty import Uncertainty


class BalancedSteps:
    """Mixin of a trainer whose `compute_loss` passes the losses of rows through `balanced`."""

    balance: ByTask | Uncertainty | None = None
    _rows: tuple[Tensor, Sequence[str], int] | None = None

    def balanced(self, losses: Tensor, tasks: Sequence[str], rows: int) -> Tensor:
        """The losses of rows as they count.

        Args:
            losses: Shape `(rows,)`.
            tasks: Task of each row.
            rows: Number of rows of the batch over all processes.
        """
        if isinstance(self.balance, Uncertainty):
            return self.balance.weighted(losses, tasks)
        if isinstance(self.balance, ByTask):
            self._rows = losses, tasks, rows
        return losses

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """A forward and a backward pass, or a backward pass for each task of the batch."""
        trainer: Any = self
        if not isinstance(self.balance, ByTask):
            return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        model.train()
        # The gradients of each task are summed over processes by themselves, not those that a backward pass leaves.
        with trainer.accelerator.no_sync(model), trainer.compute_loss_context_manager():
            mean: Tensor = trainer.compute_loss(model, trainer._prepare_inputs(inputs))
        assert self._rows is not None, "`compute_loss` hands them over"
        losses, tasks, rows = self._rows
        self._rows = None
        parts = trainer.current_gradient_accumulation_steps
        self.balance.take(losses, tasks, 1 / (rows * parts))
        if trainer.accelerator.sync_gradients:
            self.balance.finish()
        return mean.detach() / parts
