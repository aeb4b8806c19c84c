"""One call of ``weft::adapter_bottleneck``: what its implementations take and return."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Call(NamedTuple):
    """The arguments of the op, in the order of its schema; `adapter_bottleneck` says what they mean.

    Rows are flattened to (rows, length, width), the scale is a table (tasks or 1, 1 or d_out), and `factor` a number
    beside it. `ids`, `order` and `bounds` are those of `RoutedRows`, or all None where every row is task 0.
    """

    x: Tensor
    down: Tensor
    up: Tensor
    down_bias: Tensor | None
    up_bias: Tensor | None
    residual: Tensor | None
    scale: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    ids: Tensor | None
    order: Tensor | None
    bounds: Tensor | None
    down_slots: Tensor | None
    up_slots: Tensor | None
    seed: Tensor | None
    factor: float
    norm_eps: float
    input_dropout: float
    hidden_dropout: float
    dropout: float
    activation: str
    add_input: bool
    save: bool
    backend: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    @property
    def length(self) -> int:
        """Tokens per row."""
        return self.x.shape[1]

    @property
    def tokens(self) -> int:
        """Number of tokens, identity tokens included."""
        return self.x.shape[0] * self.x.shape[1]

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return 1 if self.bounds is None else self.bounds.shape[0] - 1

    @property
    def base(self) -> Tensor | None:
        """What the result is added to."""
        return self.x if self.add_input else self.residual

    def slots(self, part: str) -> int:
        """Number of slots of ``down`` or ``up``."""
        return (self.down if part == "down" else self.up).shape[0]

    def table(self, part: str) -> Tensor | None:
        """Slot of every task in that part."""
        return self.down_slots if part == "down" else self.up_slots

    def dense(self) -> Call:
        """The same with its tensors in dense memory, as kernels that compute addresses need them."""
        dense: tuple[Any, ...] = tuple(v.contiguous() if isinstance(v, Tensor) else v for v in self)
        return Call(*dense)


class PerInput(NamedTuple, Generic[Value]):
    """A value for each input that may have a gradient, in the order of the backward op."""

    x: Value
    down: Value
    up: Value
    down_bias: Value
    up_bias: Value
    scale: Value
    norm_weight: Value
    norm_bias: Value


Gradients = PerInput[Tensor | None]


def gradients(found: dict[str, Tensor | None]) -> Gradients:
    """Gradients by name, None for those not found."""
    return Gradients(*(found.get(name) for name in PerInput._fields))
