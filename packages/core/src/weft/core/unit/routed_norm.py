"""A LayerNorm whose scale and shift may differ from row to row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.unit.protocol import Weights

if TYPE_CHECKING:
    from torch import Tensor


def routed_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """`(x - mean) / std * weight + bias` over the last dimension, with the slot of each row's task.

    Args:
        x: Shape `(rows, ..., width)`.
        weights: Tensors of a site, with `{name}.weight` and `{name}.bias` of shape `(width,)`.
        name: What the two are called.

    Returns:
        The shape and dtype of `x`.
    """
    from torch.nn import functional

    factor, shift = weights.rows(f"{name}.weight"), weights.rows(f"{name}.bias")
    if factor.shape[0] == shift.shape[0] == 1:
        # In one operation, which keeps less for the backward pass.
        return functional.layer_norm(x, x.shape[-1:], factor[0].to(x.dtype), shift[0].to(x.dtype))
    shape = [-1, *[1] * (x.dim() - 2), x.shape[-1]]
    factor, shift = factor.view(shape), shift.view(shape)
    return (functional.layer_norm(x, x.shape[-1:]) * factor + shift).to(x.dtype)
