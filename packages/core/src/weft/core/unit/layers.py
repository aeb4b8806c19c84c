"""The layers that units are made of, whose weights may differ from row to row: their tensors, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from weft.core.backbone.sites import Site
from weft.core.unit.initialisers import ones, zeros
from weft.core.unit.protocol import Init, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weft.kernels import RoutedRows


class Slots(Protocol):
    """What layers read of `Weights`, and of the branches of one."""

    @property
    def routed(self) -> RoutedRows | None: ...  # noqa: D102
    def __getitem__(self, name: str) -> Tensor: ...
    def stored(self, name: str) -> tuple[Tensor, Tensor | None]: ...  # noqa: D102
    def rows(self, name: str) -> Tensor: ...  # noqa: D102


def affine_tensors(
    name: str, into: int, out: int, init: Init, *, bias: Init = zeros, part: str | None = None, **options: Any
) -> tuple[TensorSpec, TensorSpec]:
    """`{name}.weight` of shape `(into, out)`, which `init` draws, and `{name}.bias`.

    By default they belong to the part that is called like them.
    """
    return (
        TensorSpec(f"{name}.weight", (into, out), init, part or name, **options),
        TensorSpec(f"{name}.bias", (out,), bias, part or name, **options),
    )


def norm_tensors(name: str, width: int, part: str, **options: Any) -> tuple[TensorSpec, TensorSpec]:
    """`{name}.weight`, which starts as ones, and `{name}.bias`; see `affine_tensors`."""
    return (
        TensorSpec(f"{name}.weight", (width,), ones, part, **options),
        TensorSpec(f"{name}.bias", (width,), zeros, part, **options),
    )


def of_rows(slots: Tensor, ids: Tensor | None) -> Tensor:
    """The slot of every row, shape `(rows or 1, *shape)`; rows of task -1 get slot 0.

    `ids` are the task of every row, shape `(rows,)`, or None where there is one task.
    """
    if slots.shape[0] == 1 or ids is None:
        return slots[:1]
    return slots.index_select(0, ids.clamp_min(0))


def across(values: Tensor, x: Tensor) -> Tensor:
    """Values of every row, shape `(rows or 1, width)`, in a shape that broadcasts against `x`, `(rows, ..., any)`."""
    return values.reshape(-1, *[1] * (x.dim() - 2), values.shape[-1])


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W + b`, with a matrix for each element of the first axis, or one for all; in the dtype of `x`.

    Args:
        x: Shape `(rows, ..., in)`, or `(1, ..., in)`.
        weight: Shape `(rows or 1, in, out)`.
        bias: Shape `(rows or 1, out)`.

    Returns:
        Shape `(rows, ..., out)`.
    """
    flat = x.flatten(1, -2) if x.dim() > 2 else x[:, None]
    result = flat @ (weight[0] if weight.shape[0] == 1 else weight).to(x.dtype)
    if bias is not None:
        result = result + bias[:, None].to(x.dtype)
    return result.view(result.shape[0], *x.shape[1:-1], result.shape[-1])


def slot_affine(x: Tensor, weights: Slots, name: str) -> Tensor:
    """`affine` of a table of every slot, with the slots of `{name}.weight` and `{name}.bias`."""
    return affine(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def routed_linear(x: Tensor, weights: Slots, name: str) -> Tensor:
    """`affine` with `{name}.weight` and `{name}.bias` of each row's task."""
    return affine(x, weights.rows(f"{name}.weight"), weights.rows(f"{name}.bias"))


def routed_norm(x: Tensor, weights: Slots, name: str) -> Tensor:
    """`(x - mean) / std * weight + bias` over the last dimension, with the slot of each row's task.

    The tensors are `{name}.weight` and `{name}.bias`, of shape `(width,)`; `x` is of shape `(rows, ..., width)`.

    Returns:
        The shape and dtype of `x`.
    """
    from torch.nn import functional

    factor, shift = weights.rows(f"{name}.weight"), weights.rows(f"{name}.bias")
    if factor.shape[0] == shift.shape[0] == 1:
        # In one operation, which keeps less for the backward pass.
        return functional.layer_norm(x, x.shape[-1:], factor[0].to(x.dtype), shift[0].to(x.dtype))
    plain = functional.layer_norm(x, x.shape[-1:])
    return (plain * across(factor, x) + across(shift, x)).to(x.dtype)


def routed_bottleneck(
    read: Tensor,
    weights: Slots,
    residual: Tensor | None,
    *,
    norm: str | None = None,
    up: str = "up",
    scale: float | str = 1.0,
    **options: Any,
) -> Tensor:
    """`residual + s (act(read D + b) U + u)`, with the slots of each row's task.

    Args:
        read: Shape `(rows, ..., in)`.
        weights: Tensors of a site, with `down.weight`, `down.bias`, `up.weight` and `up.bias`.
        residual: What it is added to, shape `(rows, ..., out)`, or None; also the result for rows without a task.
        norm: What the weight and the bias of a LayerNorm of what is read are called; None stands for no norm.
        up: What the second map is called.
        scale: `s`, or what its tensor is called.
        options: Activation and dropout, as `weft.kernels.adapter_bottleneck` takes them.

    Returns:
        Shape `(rows, ..., out)`.
    """
    from weft.kernels import BottleneckWeights, adapter_bottleneck

    norm_weight = norm_bias = None
    if norm is not None:
        norm_weight, norm_bias = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
        if norm_weight.shape[0] == norm_bias.shape[0] == 1:
            norm_weight, norm_bias = norm_weight[0], norm_bias[0]
        else:
            read, norm_weight, norm_bias = routed_norm(read, weights, norm), None, None
    down_weight, down_slots = weights.stored("down.weight")
    up_weight, up_slots = weights.stored(f"{up}.weight")
    biases = {
        f"{half}_bias": weights.stored(f"{name}.bias")[0] for half, name in (("down", "down"), ("up", up))
    }
    slots: dict[str, Any] = {"down_slots": down_slots, "up_slots": up_slots, **biases}
    tensors = BottleneckWeights(down_weight, up_weight, norm_weight=norm_weight, norm_bias=norm_bias, **slots)
    factor: float | Tensor = weights[scale] if isinstance(scale, str) else scale
    if not isinstance(factor, float | int) and factor.shape[0] == 1:
        factor = factor[0]
    return adapter_bottleneck(read, tensors, weights.routed, residual=residual, scale=factor, **options)


def is_map(weight: object) -> bool:
    """Whether a weight is that of a linear map, or of a 1×1 convolution, in floating-point numbers."""
    import torch

    return (
        isinstance(weight, torch.Tensor)
        and weight.is_floating_point()
        and weight.dim() > 1
        and weight.flatten(1).shape == weight.shape[:2]
    )


def own_weight(module: nn.Module, site: Site) -> Tensor:
    """The weights of the outputs of a map that belong to a site, shape `(width, in_width)`; a view of them all."""
    first, last = site.rows or (0, site.out_width)
    weight: Tensor = module.weight.flatten(1)[first:last]  # type: ignore[operator]  # a 1×1 convolution's has 4 axes
    return weight


def added_to_part(output: Tensor, update: Tensor, part: tuple[int, int] | None) -> Tensor:
    """`output` plus an update of its features from the first to the last of `part`; None stands for all.

    Shapes are `(rows, ..., out)` and `(rows, ..., last - first)`.
    """
    from torch.nn import functional

    if part is None:
        return output + update
    return output + functional.pad(update, (part[0], output.shape[-1] - part[1]))
