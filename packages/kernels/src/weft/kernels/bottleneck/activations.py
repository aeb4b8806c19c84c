"""The activations of the bottleneck and their derivatives, as plain torch calls."""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "identity")


def activate(z: Tensor, activation: str) -> Tensor:
    """``act(z)``, same shape and dtype; `activation` is one of `ACTIVATIONS`."""
    if activation == "relu":
        return torch.relu(z)
    if activation == "gelu":
        return torch.nn.functional.gelu(z)
    if activation == "gelu_tanh":
        return torch.nn.functional.gelu(z, approximate="tanh")
    if activation == "silu":
        return torch.nn.functional.silu(z)
    return z


def activation_backward(gradient: Tensor, z: Tensor, activation: str) -> Tensor:
    """``gradient * act'(z)``; the derivative of relu at zero is zero."""
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward(gradient, z, 0)
    if activation == "gelu":
        return aten.gelu_backward(gradient, z)
    if activation == "gelu_tanh":
        return aten.gelu_backward(gradient, z, approximate="tanh")
    if activation == "silu":
        return aten.silu_backward(gradient, z)
    return gradient
