"""Registration of ``weft::adapter_bottleneck`` and its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.bottleneck import reference
from weft.kernels.bottleneck.call import INPUTS, Call, PerInput

_TENSORS = (
    "Tensor x, Tensor down, Tensor up, Tensor? down_bias, Tensor? up_bias, Tensor? residual, Tensor? scale, "
    "Tensor? norm_weight, Tensor? norm_bias, Tensor? ids, Tensor? order, Tensor? bounds, Tensor? down_slots, "
    "Tensor? up_slots, Tensor? seed"
)
_VALUES = (
    "float factor, float norm_eps, float input_dropout, float hidden_dropout, float dropout, str activation, "
    "bool add_input, bool save, str backend"
)
_RESIDUAL, _ADD_INPUT = Call._fields.index("residual"), Call._fields.index("add_input")
_TENSOR_COUNT = Call._fields.index("factor")


def _implementation(call: Call) -> Any:
    """The module that computes."""
    if not use_triton(call.x, call.backend):
        return reference
    from weft.kernels.bottleneck import launch

    return launch


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*arguments)
    y, z, statistics = _implementation(call).forward(call)
    return (y, z, statistics) if call.save else (y, z.new_empty(0), statistics.new_empty(0))


def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*arguments)
    x, tokens = call.x, call.tokens
    dtype = x.dtype if call.residual is None else torch.promote_types(call.residual.dtype, x.dtype)
    y = x.new_empty((x.shape[0], x.shape[1], call.up.shape[2]), dtype=dtype)
    accumulator = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    if not call.save:
        return y, x.new_empty(0), x.new_empty(0, dtype=accumulator)
    measured = 0 if call.norm_weight is None else tokens
    z = x.new_empty((tokens, call.down.shape[2]))
    return y, z, x.new_empty((2, measured), dtype=accumulator)


def _backward(
    dy: Tensor, z: Tensor, statistics: Tensor, needs: list[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    call = Call(*arguments)
    found = _implementation(call).backward(call, dy, z, statistics, PerInput(*needs))
    wanted = (gradient if need else None for gradient, need in zip(found, needs, strict=True))
    return registration.gradients(wanted, [arguments[position] for position in INPUTS])


def _backward_fake(
    dy: Tensor, z: Tensor, statistics: Tensor, needs: list[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    return registration.fake_gradients(needs, [arguments[position] for position in INPUTS])


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
    needs = [bool(asked[i]) for i in INPUTS]
    gradients: list[Any] = [None] * len(Call._fields)
    if asked[_RESIDUAL]:
        gradients[_RESIDUAL] = dy.to(ctx.residual_dtype)
    if any(needs):
        found = torch.ops.weft.adapter_bottleneck_backward(dy, z, statistics, needs, *tensors, *ctx.values)
        for position, need, gradient in zip(INPUTS, needs, found, strict=True):
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
    for position in INPUTS:
        if cast[position] is not None:
            cast[position] = cast[position].to(dtype)
    return tuple(cast)


def _flops(x: Any, down: Any, up: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * x[0] * x[1] * (down[1] * down[2] + up[1] * up[2])


def _backward_flops(
    dy: Any, z: Any, statistics: Any, needs: Any, x: Any, down: Any, up: Any, *rest: Any, **n: Any
) -> int:
    return 2 * _flops(x, down, up)


registration.define_pair(
    "adapter_bottleneck", f"({_TENSORS}, {_VALUES}) -> (Tensor, Tensor, Tensor)", _forward, _forward_fake,
    f"(Tensor dy, Tensor z, Tensor statistics, bool[] needs, {_TENSORS}, {_VALUES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward, _backward_fake, autograd=_autograd, setup_context=_setup_context, cast=_cast, flops=_flops,
    backward_flops=_backward_flops,
)  # fmt: skip
