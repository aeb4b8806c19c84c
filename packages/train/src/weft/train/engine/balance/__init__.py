"""Balancing tasks that share weights, by their losses or their gradients; one method per file."""

from __future__ import annotations

from typing import Any

from weft.train.engine.balance.by_task import ByTask
from weft.train.engine.balance.gradnorm import GradNorm
from weft.train.engine.balance.pcgrad import PCGrad
from weft.train.engine.balance.steps import BalancedSteps
from weft.train.engine.balance.uncertainty import Uncertainty
from weft.train.processes import Processes

__all__ = ["BalancedSteps", "GradNorm", "PCGrad", "Uncertainty", "balance_of"]


def balance_of(
    section: Any, model: Any, tasks: tuple[str, ...], processes: Processes
) -> ByTask | Uncertainty | None:
    """What balances the tasks of a run, or None."""
    if section.balance is None:
        return None
    if section.balance == "pcgrad":
        return PCGrad(model, tasks, processes)
    if section.balance == "gradnorm":
        return GradNorm(model, tasks, processes, section.balance_alpha)
    return Uncertainty(tasks, section.learning_rate, processes)
