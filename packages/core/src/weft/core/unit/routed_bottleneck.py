"""The bottleneck of a site, computed with the slots of each row's task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft.core.unit.protocol import Weights

if TYPE_CHECKING:
    from torch import Tensor


def routed_bottleneck(
    read: Tensor,
    weights: Weights,
    residual: Tensor,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """`residual + s (act(read D + b) U + u)`, with the slots of each row's task.

    Args:
        read: Shape `(rows, ..., in)`.
        weights: Tensors of a site, with `down.weight`, `down.bias`, `up.weight` and `up.bias`.
        residual: What it is added to, shape `(rows, ..., out)`; also the result for rows without a task.
        norm_weight: Weight of a LayerNorm of what is read, shape `(in,)`.
        norm_bias: Its bias.
        options: Scale, activation and dropout, as `weft.kernels.adapter_bottleneck` takes them.

    Returns:
        Shape `(rows, ..., out)`.
    """
    from weft.kernels import BottleneckWeights, adapter_bottleneck

    down, down_slots = weights.stored("down.weight")
    up, up_slots = weights.stored("up.weight")
    tensors = BottleneckWeights(
        down=down,
        up=up,
        down_bias=weights.stored("down.bias")[0],
        up_bias=weights.stored("up.bias")[0],
        down_slots=down_slots,
        up_slots=up_slots,
        norm_weight=norm_weight,
        norm_bias=norm_bias,
    )
    return adapter_bottleneck(read, tensors, weights.routed, residual=residual, **options)
