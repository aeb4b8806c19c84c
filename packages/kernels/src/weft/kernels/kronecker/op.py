"""``weft::kronecker_bottleneck``: a whole Compacter adapter, both Kronecker maps in low rank, as one op.

Per token, with x in blocks x_p and y in blocks y_q (matrices: see `factors`):

    u_p = x_p S;  z = u G + b_down;  h = act(z);  v = s · h F;  y_q = v_q T + s · b_up,q + residual_q

and backward

    dv_q = dy_q Tᵀ    dT = Σ_q v_qᵀ dy_q    db_up = s · Σ dy    dF = s · hᵀ dv    dh = s · dv Fᵀ
    dz = dh ∘ act'(z)    dG = uᵀ dz    db_down = Σ dz    du = dz Gᵀ    dS = Σ_p x_pᵀ du_p    dx_p = du_p Sᵀ (+
    dy_p)

Only x, z and u are kept, and of these z and u are thin. As in `chain`, the up bias rides in the product with
T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.bottleneck.activations import activate, activation_backward
from weft.kernels.kronecker.reference import block_outer, block_product, right_gradients, with_bias

_INPUTS = (
    "Tensor x, Tensor shared_left, Tensor merged_right, Tensor merged_left, Tensor shared_right, "
    "Tensor? down_bias, Tensor? up_bias"
)
_VALUES = "float factor, str activation, bool add_input, bool save, str backend"
_RESIDUAL = 7
_ADD_INPUT = 10


def _forward(
    x: Tensor,
    shared_left: Tensor,
    merged_right: Tensor,
    merged_left: Tensor,
    shared_right: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
    factor: float,
    activation: str,
    add_input: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    residual = x if add_input else residual
    if _kernels_serve(x, shared_left, merged_right, shared_right, backend):
        from weft.kernels.kronecker import launch

        return launch.compacter_forward(
            x.contiguous(),
            shared_left.contiguous(),
            merged_right.contiguous(),
            merged_left.contiguous(),
            shared_right.contiguous(),
            down_bias,
            up_bias,
            None if residual is None else residual.contiguous(),
            factor,
            activation,
            save,
        )
    u = block_product(x, shared_left)
    z = torch.mm(u, merged_right) if down_bias is None else torch.addmm(down_bias, u, merged_right)
    v = torch.mm(activate(z, activation) * factor, merged_left)
    right = shared_right
    if up_bias is not None:
        v, right = with_bias(v, right, up_bias * factor)
    y = _expand(v, right, residual)
    return (y, z, u) if save else (y, z.new_empty(0), z.new_empty(0))


def _kernels_serve(
    x: Tensor, shared_left: Tensor, merged_right: Tensor, shared_right: Tensor, backend: str
) -> bool:
    """Whether the fused kernels run this call."""
    if not use_triton(x, backend):
        return False
    from weft.kernels.kronecker import launch

    return launch.serves(shared_left.shape[1], merged_right.shape[1], shared_right.shape[0])


def _expand(v: Tensor, right: Tensor, residual: Tensor | None) -> Tensor:
    if residual is None or residual.dtype != v.dtype:
        y = block_product(v, right)
        return y if residual is None else residual + y
    width = right.shape[1]
    blocks = residual.reshape(-1, width)
    return torch.addmm(blocks, v.reshape(-1, right.shape[0]), right).view(residual.shape)


def _forward_fake(
    x: Tensor,
    shared_left: Tensor,
    merged_right: Tensor,
    merged_left: Tensor,
    shared_right: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
    factor: float,
    activation: str,
    add_input: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    width = merged_left.shape[1] // shared_right.shape[0] * shared_right.shape[1]
    y = x.new_empty((x.shape[0], width), dtype=dtype)
    if not save:
        return y, x.new_empty(0), x.new_empty(0)
    return (
        y,
        x.new_empty((x.shape[0], merged_right.shape[1])),
        x.new_empty((x.shape[0], merged_right.shape[0])),
    )


def _backward(
    dy: Tensor,
    z: Tensor,
    u: Tensor,
    need_x: bool,
    x: Tensor,
    shared_left: Tensor,
    merged_right: Tensor,
    merged_left: Tensor,
    shared_right: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    factor: float,
    activation: str,
    add_input: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, ...]:
    none = x.new_empty(0)
    if _kernels_serve(x, shared_left, merged_right, shared_right, backend):
        from weft.kernels.kronecker import launch

        found = launch.compacter_backward(
            dy.contiguous(),
            z,
            u,
            x.contiguous(),
            shared_left.contiguous(),
            merged_right.contiguous(),
            merged_left.contiguous(),
            shared_right.contiguous(),
            factor,
            activation,
            add_input,
            need_x,
        )
        keep = (need_x, True, True, True, True, down_bias is not None, up_bias is not None)
        return tuple(
            grad.to(x.dtype).contiguous() if wanted else none
            for grad, wanted in zip(found, keep, strict=True)
        )
    g = dy.to(x.dtype).contiguous()
    h = activate(z, activation) * factor
    v = torch.mm(h, merged_left)
    dright, dup_bias = right_gradients(v, g, shared_right, up_bias)
    dv = block_product(g, shared_right.t())
    dmerged_left = torch.mm(h.t(), dv)
    dh = torch.mm(dv, merged_left.t()) * factor
    dz = activation_backward(dh, z, activation)
    ddown_bias = none if down_bias is None else dz.sum(0)
    dmerged_right = torch.mm(u.t(), dz)
    du = torch.mm(dz, merged_right.t())
    dleft = block_outer(x, du, shared_left)
    dx = _expand(du, shared_left.t(), dy if add_input else None) if need_x else none
    return dx, dleft, dmerged_right, dmerged_left, dright, ddown_bias, dup_bias * factor


def _backward_fake(dy: Tensor, z: Tensor, u: Tensor, need_x: bool, *inputs: Any) -> tuple[Tensor, ...]:
    x = inputs[0]
    shapes = (x if need_x else None, *inputs[1:7])
    return tuple(x.new_empty(0) if like is None else like.new_empty(like.shape) for like in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, z, u = output
    ctx.mark_non_differentiable(z, u)
    residual = inputs[_RESIDUAL]
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.save_for_backward(z, u, *inputs[:_RESIDUAL])
    ctx.values = inputs[_RESIDUAL + 1 :]


def _autograd(ctx: Any, dy: Tensor, *unused: Tensor | None) -> tuple[Any, ...]:
    z, u, *tensors = ctx.saved_tensors
    asked = ctx.needs_input_grad
    gradients: list[Any] = [None] * (_RESIDUAL + 1)
    if any(asked[:_RESIDUAL]):
        found = torch.ops.weft.kronecker_bottleneck_backward(dy, z, u, bool(asked[0]), *tensors, *ctx.values)
        gradients[:_RESIDUAL] = [g if need else None for g, need in zip(found, asked, strict=False)]
    if asked[_RESIDUAL]:
        gradients[_RESIDUAL] = dy.to(ctx.residual_dtype)
    return (*gradients, *(None for _ in ctx.values))


def _cast(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Everything but the residual stream to the autocast dtype."""
    x = arguments[0]
    cast = list(registration.cast_all(dtype, arguments))
    cast[_RESIDUAL] = arguments[_RESIDUAL]
    if cast[_ADD_INPUT] and cast[0].dtype != x.dtype:
        cast[_RESIDUAL], cast[_ADD_INPUT] = x, False
    return tuple(cast)


def _flops(x: Any, left: Any, middle: Any, mixer: Any, right: Any, *others: Any, **named: Any) -> int:
    per_token = x[1] * left[1] + middle[0] * middle[1] + mixer[0] * mixer[1] + mixer[1] * right[1]
    return 2 * x[0] * per_token


def _backward_flops(dy: Any, z: Any, u: Any, need_x: Any, *inputs: Any, **named: Any) -> int:
    return 2 * _flops(*inputs[:5])


registration.define(
    "kronecker_bottleneck",
    f"({_INPUTS}, Tensor? residual, {_VALUES}) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
registration.define(
    "kronecker_bottleneck_backward",
    f"(Tensor dy, Tensor z, Tensor u, bool need_x, {_INPUTS}, {_VALUES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
registration.differentiate("kronecker_bottleneck", _autograd, _setup_context)
registration.forbid_double_backward("kronecker_bottleneck_backward")
registration.autocast("kronecker_bottleneck", _cast)
registration.count_flops("kronecker_bottleneck", _flops)
registration.count_flops("kronecker_bottleneck_backward", _backward_flops)
