"""Auxiliary losses: what units add to the loss of a batch beside what they do to its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

from weft.core.adapted.bank import Store


class AuxiliaryLosses:
    """What the units of a model added during forward passes."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def total(self) -> Tensor | float:
        """Their sum, a scalar; zero if no unit added any."""
        return sum(self.values, 0.0)


@contextlib.contextmanager
def auxiliary_losses(model: nn.Module) -> Iterator[AuxiliaryLosses]:
    """Collect the auxiliary losses of all forward passes of a model inside; elsewhere units compute none.

    Returns:
        The losses. Those of a batch are on its graph: add their `total()` to the loss before the backward pass.

    Example:
        with auxiliary_losses(model) as added, model.route(tasks=tasks):
            loss = model(**batch).loss
        (loss + added.total()).backward()
    """
    losses = AuxiliaryLosses()
    store = getattr(model, "weft", None)
    if not isinstance(store, Store) or not any(config.owes for config in store.plan.configs):
        yield losses
        return
    with store.setting("losses", losses.values):
        yield losses
