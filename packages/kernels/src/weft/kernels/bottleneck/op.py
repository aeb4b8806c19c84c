"""Registration of ``weft::adapter_bottleneck`` and its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.bottleneck import reference
from weft.kernels.bottleneck.reference import Settings, Weights
from weft.kernels.bottleneck.segments import SegmentedRows, segment_rows
from weft.kernels.bottleneck.tiles import TiledRows, tile_rows
from weft.kernels.routed_rows import RoutedRows

_TENSORS = (
    "Tensor x, Tensor down, Tensor up, Tensor? down_bias, Tensor? up_bias, Tensor? residual, Tensor? scale, "
    "Tensor? norm_weight, Tensor? norm_bias, Tensor? ids, Tensor? order, Tensor? bounds, Tensor? down_slots, "
    "Tensor? up_slots, Tensor? seed"
)
_VALUES = (
    "float factor, float norm_eps, float dropout, str activation, bool add_input, bool save, str backend"
)
_FORWARD = f"({_TENSORS}, {_VALUES}) -> (Tensor, Tensor, Tensor)"
_BACKWARD = (
    f"(Tensor dy, Tensor z, Tensor statistics, bool[] needs, {_TENSORS}, {_VALUES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_GRADIENT_INPUTS = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
)  # positions of x, down, up, biases, scale, norm weights in _TENSORS
_RESIDUAL = 5
_TENSOR_COUNT = 15
_ADD_INPUT = 19


def _routing(ids: Tensor | None, order: Tensor | None, bounds: Tensor | None) -> RoutedRows | None:
    return None if ids is None or bounds is None else RoutedRows(ids, order, bounds)


def _rows(
    x: Tensor,
    weights: Weights,
    routing: RoutedRows | None,
    down_slots: Tensor | None,
    up_slots: Tensor | None,
) -> SegmentedRows | TiledRows:
    rows, length = x.shape[0], x.shape[1]
    slots = (weights.down.shape[0], weights.up.shape[0])
    if routing is not None and x.device.type != "cpu" and rows * length:
        return tile_rows(rows, length, slots, routing, down_slots, up_slots)
    return segment_rows(rows, length, slots, routing, down_slots, up_slots)


def _forward(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None, up_bias: Tensor | None, residual: Tensor | None,
    scale: Tensor | None, norm_weight: Tensor | None, norm_bias: Tensor | None, ids: Tensor | None, order: Tensor |
    None, bounds: Tensor | None, down_slots: Tensor | None, up_slots: Tensor | None, seed: Tensor | None, factor:
    float, norm_eps: float, dropout: float, activation: str, add_input: bool, save: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    weights = Weights(down, up, down_bias, up_bias, scale, norm_weight, norm_bias)
    settings = Settings(factor, norm_eps, dropout, activation, seed)
    routing = _routing(ids, order, bounds)
    residual = x if add_input else residual
    if use_triton(x, backend):
        from weft.kernels.bottleneck import launch

        route = launch.Route(x.shape[0], x.shape[1], routing, down_slots, up_slots)
        residual = None if residual is None else residual.contiguous()
        dense = weights.contiguous()
        if down.shape[2] <= launch.MAX_FUSED_RANK:
            return launch.forward(x.contiguous(), residual, dense, settings, route, save)
        from weft.kernels.bottleneck import wide_launch

        y, z, statistics = wide_launch.forward(x.contiguous(), residual, dense, settings, route)
        return (y, z, statistics) if save else (y, z.new_empty(0), statistics.new_empty(0))
    rows = _rows(x, weights, routing, down_slots, up_slots)
    y, z, statistics = reference.forward(x, residual, weights, settings, rows)
    if not save:
        return y, z.new_empty(0), statistics.new_empty(0)
    return (
        y,
        _padded(z, x.shape[0] * x.shape[1], 0),
        _padded(statistics, statistics_tokens(x, norm_weight), 1),
    )


def statistics_tokens(x: Tensor, norm_weight: Tensor | None) -> int:
    """How many tokens the saved normalisation statistics cover."""
    return 0 if norm_weight is None else x.shape[0] * x.shape[1]


def _padded(values: Tensor, tokens: int, dim: int) -> Tensor:
    missing = tokens - values.shape[dim]
    if missing == 0:
        return values
    shape = list(values.shape)
    shape[dim] = missing
    return torch.cat((values, values.new_zeros(shape)), dim)


def _forward_fake(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None, up_bias: Tensor | None,
    residual: Tensor | None,
    scale: Tensor | None, norm_weight: Tensor | None, norm_bias: Tensor | None, ids: Tensor | None,
    order: Tensor | None, bounds: Tensor | None, down_slots: Tensor | None, up_slots: Tensor | None,
    seed: Tensor | None, factor: float, norm_eps: float, dropout: float, activation: str, add_input: bool, save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dtype = x.dtype if residual is None else torch.promote_types(residual.dtype, x.dtype)
    y = x.new_empty((x.shape[0], x.shape[1], up.shape[2]), dtype=dtype)
    statistics_dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    if not save:
        return y, x.new_empty(0), x.new_empty(0, dtype=statistics_dtype)
    z = x.new_empty((x.shape[0] * x.shape[1], down.shape[2]))
    return y, z, x.new_empty((2, statistics_tokens(x, norm_weight)), dtype=statistics_dtype)


def _backward(
    dy: Tensor, z: Tensor, statistics: Tensor, needs: list[bool], x: Tensor, down: Tensor, up: Tensor,
    down_bias: Tensor | None, up_bias: Tensor | None, residual: Tensor | None, scale: Tensor | None,
    norm_weight: Tensor | None, norm_bias: Tensor | None, ids: Tensor | None, order: Tensor | None,
    bounds: Tensor | None, down_slots: Tensor | None, up_slots: Tensor | None, seed: Tensor | None, factor: float,
    norm_eps: float, dropout: float, activation: str, add_input: bool, save: bool, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    inputs = (x, down, up, down_bias, up_bias, scale, norm_weight, norm_bias)
    weights = Weights(down, up, down_bias, up_bias, scale, norm_weight, norm_bias)
    settings = Settings(factor, norm_eps, dropout, activation, seed)
    routing = _routing(ids, order, bounds)
    if use_triton(x, backend):
        from weft.kernels.bottleneck import launch

        route = launch.Route(x.shape[0], x.shape[1], routing, down_slots, up_slots)
        contiguous = weights.contiguous()
        if down.shape[2] <= launch.MAX_FUSED_RANK:
            g = launch.backward(
                dy, x.contiguous(), z, statistics, contiguous, settings, route, add_input, needs
            )
        else:
            from weft.kernels.bottleneck import wide_launch

            g = wide_launch.backward(
                dy, x.contiguous(), z, statistics, contiguous, settings, route, add_input
            )
    else:
        rows = _rows(x, weights, routing, down_slots, up_slots)
        visited = z[: rows.tokens], statistics[:, : rows.tokens]
        g = reference.backward(dy, x, *visited, weights, settings, rows, add_input, needs)
    found = (g.x, g.down, g.up, g.down_bias, g.up_bias, g.scale, g.norm_weight, g.norm_bias)
    return tuple(
        gradient.to(like.dtype) if need and gradient is not None and like is not None else x.new_empty(0)
        for need, gradient, like in zip(needs, found, inputs, strict=True)
    )


def _backward_fake(
    dy: Tensor, z: Tensor, statistics: Tensor, needs: list[bool], x: Tensor, down: Tensor, up: Tensor,
    down_bias: Tensor | None, up_bias: Tensor | None, residual: Tensor | None, scale: Tensor | None,
    norm_weight: Tensor | None, norm_bias: Tensor | None, *others: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    inputs = (x, down, up, down_bias, up_bias, scale, norm_weight, norm_bias)
    return tuple(
        like.new_empty(like.shape) if need and like is not None else x.new_empty(0)
        for need, like in zip(needs, inputs, strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, z, statistics = output
    ctx.mark_non_differentiable(z, statistics)
    tensors, values = list(inputs[:_TENSOR_COUNT]), inputs[_TENSOR_COUNT:]
    residual = tensors[_RESIDUAL]
    ctx.residual_dtype = None if residual is None else residual.dtype
    # Only the dtype of the residual matters backward; saving it would keep a whole activation alive.
    tensors[_RESIDUAL] = None
    ctx.save_for_backward(z, statistics, *tensors)
    ctx.values = values


def _autograd(ctx: Any, dy: Tensor, *unused: Tensor | None) -> tuple[Any, ...]:
    z, statistics, *tensors = ctx.saved_tensors
    asked = ctx.needs_input_grad
    needs = [bool(asked[i]) for i in _GRADIENT_INPUTS]
    gradients: list[Any] = [None] * (_TENSOR_COUNT + len(ctx.values))
    if asked[_RESIDUAL]:
        gradients[_RESIDUAL] = dy.to(ctx.residual_dtype)
    if any(needs):
        found = torch.ops.weft.adapter_bottleneck_backward(dy, z, statistics, needs, *tensors, *ctx.values)
        for position, need, gradient in zip(_GRADIENT_INPUTS, needs, found, strict=True):
            gradients[position] = gradient if need else None
    return tuple(gradients)


def _cast(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs and weights to the autocast dtype; the residual stream and the norm keep theirs."""
    cast = list(arguments)
    x = cast[0]
    if x.dtype == torch.float64:
        return arguments
    if cast[_ADD_INPUT] and x.dtype != dtype:
        cast[_RESIDUAL], cast[_ADD_INPUT] = x, False
    for position in _GRADIENT_INPUTS:
        if cast[position] is not None:
            cast[position] = cast[position].to(dtype)
    return tuple(cast)


def _flops(x: Any, down: Any, up: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * x[0] * x[1] * (down[1] * down[2] + up[1] * up[2])


def _backward_flops(
    dy: Any, z: Any, statistics: Any, needs: Any, x: Any, down: Any, up: Any, *rest: Any, **n: Any
) -> int:
    return 2 * _flops(x, down, up)


registration.define("adapter_bottleneck", _FORWARD, _forward, _forward_fake)
registration.define("adapter_bottleneck_backward", _BACKWARD, _backward, _backward_fake)
registration.differentiate("adapter_bottleneck", _autograd, _setup_context)
registration.forbid_double_backward("adapter_bottleneck_backward")
registration.autocast("adapter_bottleneck", _cast)
registration.count_flops("adapter_bottleneck", _flops)
registration.count_flops("adapter_bottleneck_backward", _backward_flops)
