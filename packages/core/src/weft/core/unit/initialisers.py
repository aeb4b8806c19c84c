"""Initial values of slots, by name. Each fills one tensor in place, from torch's global generator."""

from __future__ import annotations

import math
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING

from weft.core.unit.protocol import Init

if TYPE_CHECKING:
    from torch import Tensor


def eye(value: Tensor) -> None:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    from torch import nn

    nn.init.eye_(value)


def constant(number: float) -> Init:
    """One number everywhere."""
    return methodcaller("fill_", number)


def normal(std: float) -> Init:
    """Normal with mean zero."""
    return methodcaller("normal_", std=std)


def uniform(bound: float) -> Init:
    """Uniform between `-bound` and `bound`."""
    return methodcaller("uniform_", -bound, bound)


def fan_in(features: int) -> Init:
    """Uniform within one over the square root of the input features, as `nn.Linear` draws."""
    return uniform(1 / math.sqrt(features))


def xavier(gain: float = 1.0) -> Init:
    """Xavier uniform; each matrix of a stack by itself."""
    return partial(_xavier, gain=gain)


def _xavier(value: Tensor, gain: float) -> None:
    from torch import nn

    matrices = value if value.dim() == 3 else value[None]
    for matrix in matrices:
        nn.init.xavier_uniform_(matrix, gain=gain)


zeros, ones = constant(0.0), constant(1.0)
