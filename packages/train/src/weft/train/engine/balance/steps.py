"""How a trainer's steps balance tasks: the losses of rows are weighted, or each task has gradients of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weft.train.engine.balance.pcgrad import PCGrad
from weft.train.engine.balance.uncertainty import Uncertainty


class BalancedSteps:
    """Mixin of a trainer whose `compute_loss` passes the losses of rows through `balanced`."""

    balance: PCGrad | Uncertainty | None = None
    _rows: tuple[Tensor, Sequence[str]] | None = None

    def balanced(self, losses: Tensor, tasks: Sequence[str]) -> Tensor:
        """The losses of rows as they count.

        Args:
            losses: Shape `(rows,)`.
            tasks: Task of each row.
        """
        if isinstance(self.balance, Uncertainty):
            return self.balance.weighted(losses, tasks)
        if isinstance(self.balance, PCGrad):
            self._rows = losses, tasks
        return losses

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """A forward and a backward pass; with PCGrad a backward pass for each task of the batch."""
        trainer: Any = self
        if not isinstance(self.balance, PCGrad):
            loss: Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
            return loss
        model.train()
        with trainer.compute_loss_context_manager():
            mean: Tensor = trainer.compute_loss(model, trainer._prepare_inputs(inputs))
        assert self._rows is not None, "`compute_loss` hands them over"
        losses, tasks = self._rows
        self._rows = None
        parts = trainer.current_gradient_accumulation_steps
        self.balance.take(losses, tasks, 1 / (len(losses) * parts))
        if trainer.accelerator.sync_gradients:
            self.balance.finish()
        return mean.detach() / parts
