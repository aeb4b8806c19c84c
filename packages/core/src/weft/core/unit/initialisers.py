"""Initial values of slots, by name. Each fills one tensor in place, from torch's global generator."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from weft.core.unit.protocol import Init

if TYPE_CHECKING:
    from torch import Tensor


def zeros(value: Tensor) -> None:
    """All zeros."""
    value.zero_()


def ones(value: Tensor) -> None:
    """All ones."""
    value.fill_(1.0)


def eye(value: Tensor) -> None:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    from torch import nn

    nn.init.eye_(value)


def _normal(value: Tensor, std: float) -> None:
    value.normal_(std=std)


def _uniform(value: Tensor, bound: float) -> None:
    value.uniform_(-bound, bound)


def _xavier(value: Tensor, gain: float) -> None:
    from torch import nn

    matrices = value if value.dim() == 3 else value[None]
    for matrix in matrices:
        nn.init.xavier_uniform_(matrix, gain=gain)


def _constant(value: Tensor, number: float) -> None:
    value.fill_(number)


def normal(std: float) -> Init:
    """Normal with mean zero."""
    return partial(_normal, std=std)


def uniform(bound: float) -> Init:
    """Uniform between `-bound` and `bound`."""
    return partial(_uniform, bound=bound)


def fan_in(features: int) -> Init:
    """Uniform within one over the square root of the input features, as `nn.Linear` draws."""
    return partial(_uniform, bound=1 / math.sqrt(features))


def xavier(gain: float = 1.0) -> Init:
    """Xavier uniform; each matrix of a stack by itself."""
    return partial(_xavier, gain=gain)


def constant(number: float) -> Init:
    """One number everywhere."""
    return partial(_constant, number=number)
