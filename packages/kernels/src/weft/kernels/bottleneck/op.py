"""Registration of ``weft::adapter_bottleneck`` and its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import accumulator, use_triton
from weft.kernels.bottleneck import reference
from weft.kernels.bottleneck.call import Call, Gradients, PerInput

_ARGUMENTS = (
    "Tensor x, Tensor down, Tensor up, Tensor? down_bias, Tensor? up_bias, Tensor? residual, Tensor? scale, "
    "Tensor? norm_weight, Tensor? norm_bias, Tensor? ids, Tensor? order, Tensor? bounds, Tensor? down_slots, "
    "Tensor? up_slots, Tensor? seed, "
    "float factor, float norm_eps, float input_dropout, float hidden_dropout, float dropout, str activation, "
    "bool add_input, bool save, str backend"
)


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
    measured = (2, 0 if call.norm_weight is None else tokens) if call.save else (0,)
    z = x.new_empty((tokens, call.down.shape[2]) if call.save else (0,))
    return y, z, x.new_empty(measured, dtype=accumulator(x.dtype))


def _backward(dy: Tensor, z: Tensor, statistics: Tensor, needs: list[bool], *arguments: Any) -> Gradients:
    call = Call(*arguments)
    return _implementation(call).backward(call, dy, z, statistics, PerInput(*needs))


def _flops(x: Any, down: Any, up: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * x[0] * x[1] * (down[1] * down[2] + up[1] * up[2])


registration.Pair(
    name="adapter_bottleneck",
    arguments=_ARGUMENTS,
    gradients=PerInput._fields,
    forward=_forward,
    fake=_forward_fake,
    backward=_backward,
    flops=_flops,
    backward_cost=2,
    casts=True,
    kept=2,
    added="residual",
).define()
