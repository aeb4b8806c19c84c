"""Temperature scaling: one temperature, fitted to held-out samples, calibrates the probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# The search interval of log(temperature), and the width at which it stops.
_LOWEST, _HIGHEST, _PRECISION = math.log(0.01), math.log(100.0), 1e-4


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that maximises the likelihood of held-out samples, between 0.01 and 100.

    The mean cross-entropy of `logits / T` is convex in `1 / T`, so it has one minimum in `log T`, which a
    golden-section search finds. Logits have the shape (samples, classes). `weft.eval.metrics.calibration` measures what
    it gives.

    Source: Guo et al. 2017, section 4.2.

    >>> round(fit_temperature(torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])), 2)
    3.64
    """
    target = labels.to(torch.int64)
    values = logits.detach().double()

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(values / math.exp(log_temperature), target))

    ratio = (math.sqrt(5) - 1) / 2
    low, high = _LOWEST, _HIGHEST
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > _PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)
