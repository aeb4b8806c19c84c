"""An affine map whose weights may differ from row to row, in plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.unit.protocol import Weights

if TYPE_CHECKING:
    from torch import Tensor


def routed_linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """`x W + b`, with the slot of each row's task.

    Args:
        x: Shape `(rows, ..., in)`.
        weights: Tensors of a site, with `{name}.weight` of shape `(in, out)` and `{name}.bias` of shape `(out,)`.
        name: What the two are called.

    Returns:
        Shape `(rows, ..., out)`, in the dtype of `x`.
    """
    weight = weights.rows(f"{name}.weight").to(x.dtype)
    bias = weights.rows(f"{name}.bias").to(x.dtype)
    flat = x.flatten(1, -2) @ weight + bias[:, None]
    return flat.view(*x.shape[:-1], flat.shape[-1])
