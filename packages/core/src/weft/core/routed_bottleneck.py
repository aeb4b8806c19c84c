"""The bottleneck of a site, computed with the slots of each row's task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft.core.unit import Weights

if TYPE_CHECKING:
    from torch import Tensor


def routed_bottleneck(read: Tensor, weights: Weights, residual: Tensor, **options: Any) -> Tensor:
    """`residual + s (act(read D + b) U + u)`, with the slots of each row's task.

    Args:
        read: Shape `(rows, ..., in)`.
        weights: Tensors of a site, with `down.weight`, `down.bias`, `up.weight` and `up.bias`.
        residual: What it is added to, shape `(rows, ..., out)`; also the result for rows without a task.
        options: Scale, activation and norm, as `weft.kernels.adapter_bottleneck` takes them.

    Returns:
        Shape `(rows, ..., out)`.
    """
    from weft.kernels import adapter_bottleneck

    return adapter_bottleneck(
        read,
        weights["down.weight"],
        weights["up.weight"],
        down_bias=weights["down.bias"],
        up_bias=weights["up.bias"],
        task_ids=weights.task_ids,
        down_slots=weights.slots("down.weight"),
        up_slots=weights.slots("up.weight"),
        residual=residual,
        **options,
    )
