"""The tensors of a bottleneck adapter with slots, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class BottleneckWeights:
    """The weights of `adapter_bottleneck`: a slot per task, or tables that say which task uses which.

    Attributes:
        down: down-projections, shape (down slots, d_in, r).
        up: up-projections, shape (up slots, r, d_out).
        down_bias: shape (down slots, r).
        up_bias: shape (up slots, d_out).
        down_slots: down slot of every task, int32 or int64, shape (tasks,). None: task t uses slot t, or slot
            0 if there is only one.
        up_slots: the same for the up part.
        norm_weight: weight of a LayerNorm over d_in applied first, shape (d_in,). None: no normalisation.
        norm_bias: bias of that LayerNorm, shape (d_in,).
        norm_eps: its epsilon.
    """

    down: Tensor
    up: Tensor
    down_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_slots: Tensor | None = None
    up_slots: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    norm_eps: float = 1e-5

    @property
    def tables(self) -> dict[str, Tensor | None]:
        """The tables of slots by name."""
        return {"down_slots": self.down_slots, "up_slots": self.up_slots}

    @property
    def floats(self) -> dict[str, Tensor | None]:
        """The tensors of numbers by name."""
        names = ("down", "up", "down_bias", "up_bias", "norm_weight", "norm_bias")
        return {name: getattr(self, name) for name in names}
