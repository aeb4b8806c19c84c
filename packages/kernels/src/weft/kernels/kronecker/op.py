"""Registration of ``weft::kronecker_sum``, ``weft::kronecker_chain`` and ``weft::kronecker_bottleneck``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.kronecker import reference
from weft.kernels.kronecker.factors import AdapterFactors, ThinFactors


def _implementation(x: Tensor, backend: str, thin: tuple[int, ...] = (1,)) -> Any:
    """The module that computes: `launch`, where all `thin` sizes fit its kernels, or `reference`."""
    if not use_triton(x, backend):
        return reference
    from weft.kernels.kronecker import launch

    return launch if thin and max(thin) <= launch.MAX_THIN else reference


def _sum_forward(rule: Tensor, weight: Tensor, backend: str) -> Tensor:
    out: Tensor = _implementation(rule, backend).sum_forward(rule, weight)
    return out


def _sum_forward_fake(rule: Tensor, weight: Tensor, backend: str) -> Tensor:
    return rule.new_empty((rule.shape[0], rule.shape[2] * weight.shape[2], rule.shape[3] * weight.shape[3]))


def _sum_backward_fake(gradient: Tensor, rule: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return rule.new_empty(rule.shape), weight.new_empty(weight.shape)


def _sum_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _sum_autograd(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    drule, dweight = torch.ops.weft.kronecker_sum_backward(gradient, *ctx.saved_tensors)
    return drule, dweight, None


def _sum_flops(rule: Any, weight: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    slots, terms, a, b = rule
    return 2 * slots * terms * a * b * weight[2] * weight[3]


def _sum_backward_flops(gradient: Any, rule: Any, weight: Any, *others: Any, **named: Any) -> int:
    return 2 * _sum_flops(rule, weight)


def _thin(factors: ThinFactors) -> tuple[int, ...]:
    first = () if factors.s is None else (factors.s.shape[1],)
    return first if factors.t is None else (*first, factors.t.shape[0])


def _chain_forward(
    x: Tensor, s: Tensor | None, m: Tensor, t: Tensor | None, bias: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    factors = ThinFactors(s, m, t, bias)
    y, u = _implementation(x, backend, _thin(factors)).chain_forward(x, factors)
    return y, (x.new_empty(0) if s is None else u)


def _chain_forward_fake(
    x: Tensor, s: Tensor | None, m: Tensor, t: Tensor | None, bias: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    width = m.shape[1] if t is None else m.shape[1] // t.shape[0] * t.shape[1]
    y = x.new_empty((x.shape[0], width))
    return y, (x.new_empty(0) if s is None else x.new_empty((x.shape[0], m.shape[0])))


def _chain_backward(dy: Tensor, x: Tensor, u: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, need_x, backend = arguments
    factors = ThinFactors(*tensors)
    implementation = _implementation(x, backend, _thin(factors))
    found = implementation.chain_backward(dy, x, x if factors.s is None else u, factors, need_x)
    return registration.gradients(found, (x, *factors))


def _chain_backward_fake(dy: Tensor, x: Tensor, u: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *factors, need_x, _ = arguments
    return registration.fake_gradients((need_x, True, True, True, True), (x, *factors))


def _chain_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *factors, ctx.backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, output[1], *factors)


def _chain_autograd(ctx: Any, dy: Tensor, unused: Tensor | None) -> tuple[Any, ...]:
    asked = ctx.needs_input_grad
    found = torch.ops.weft.kronecker_chain_backward(dy, *ctx.saved_tensors, bool(asked[0]), ctx.backend)
    return (*(gradient if need else None for need, gradient in zip(asked, found, strict=False)), None)


def _chain_flops(x: Any, s: Any, m: Any, t: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    last = 0 if t is None else m[1] * t[1]
    first = 0 if s is None else x[1] * s[1]
    return 2 * x[0] * (first + m[0] * m[1] + last)


def _chain_backward_flops(dy: Any, x: Any, u: Any, s: Any, m: Any, t: Any, *others: Any, **named: Any) -> int:
    return 2 * _chain_flops(x, s, m, t)


class _Adapter(NamedTuple):
    """The arguments of ``weft::kronecker_bottleneck``, in the order of its schema."""

    x: Tensor
    s: Tensor
    g: Tensor
    f: Tensor
    t: Tensor
    down_bias: Tensor | None
    up_bias: Tensor | None
    residual: Tensor | None
    factor: float
    activation: str
    add_input: bool
    save: bool
    backend: str

    @property
    def factors(self) -> AdapterFactors:
        """The matrices and biases."""
        return AdapterFactors(*self[1:7])


_RESIDUAL, _ADD_INPUT = _Adapter._fields.index("residual"), _Adapter._fields.index("add_input")


def _adapter_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = _Adapter(*arguments)
    implementation = _implementation(call.x, call.backend, call.factors.thin)
    y, z, u = implementation.adapter_forward(
        call.x, call.factors, call.x if call.add_input else call.residual, call.factor, call.activation, call.save
    )  # fmt: skip
    return (y, z, u) if call.save else (y, z.new_empty(0), u.new_empty(0))


def _adapter_forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = _Adapter(*arguments)
    x, tokens = call.x, call.x.shape[0]
    dtype = x.dtype if call.residual is None else torch.promote_types(x.dtype, call.residual.dtype)
    y = x.new_empty((tokens, call.f.shape[1] // call.t.shape[0] * call.t.shape[1]), dtype=dtype)
    if not call.save:
        return y, x.new_empty(0), x.new_empty(0)
    return y, x.new_empty((tokens, call.g.shape[1])), x.new_empty((tokens, call.g.shape[0]))


def _adapter_backward(dy: Tensor, z: Tensor, u: Tensor, need_x: bool, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, factor, activation, add_input, _, backend = arguments
    x, factors = tensors[0], AdapterFactors(*tensors[1:])
    found = _implementation(x, backend, factors.thin).adapter_backward(
        dy, z, u, x, factors, factor, activation, add_input, need_x
    )
    return registration.gradients(found, tensors)


def _adapter_backward_fake(
    dy: Tensor, z: Tensor, u: Tensor, need_x: bool, *arguments: Any
) -> tuple[Tensor, ...]:
    return registration.fake_gradients((need_x, *[True] * (_RESIDUAL - 1)), arguments[:_RESIDUAL])


def _adapter_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, z, u = output
    ctx.mark_non_differentiable(z, u)
    residual = inputs[_RESIDUAL]
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.save_for_backward(z, u, *inputs[:_RESIDUAL])
    ctx.values = inputs[_RESIDUAL + 1 :]


def _adapter_autograd(ctx: Any, dy: Tensor, *unused: Tensor | None) -> tuple[Any, ...]:
    z, u, *tensors = ctx.saved_tensors
    asked = ctx.needs_input_grad
    gradients: list[Any] = [None] * (_RESIDUAL + 1)
    if any(asked[:_RESIDUAL]):
        found = torch.ops.weft.kronecker_bottleneck_backward(dy, z, u, bool(asked[0]), *tensors, *ctx.values)
        gradients[:_RESIDUAL] = [g if need else None for g, need in zip(found, asked, strict=False)]
    if asked[_RESIDUAL]:
        gradients[_RESIDUAL] = dy.to(ctx.residual_dtype)
    return (*gradients, *(None for _ in ctx.values))


def _adapter_cast(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Everything but the residual stream to the autocast dtype."""
    x = arguments[0]
    cast = list(registration.cast_all(dtype, arguments))
    cast[_RESIDUAL] = arguments[_RESIDUAL]
    if cast[_ADD_INPUT] and cast[0].dtype != x.dtype:
        cast[_RESIDUAL], cast[_ADD_INPUT] = x, False
    return tuple(cast)


def _adapter_flops(x: Any, s: Any, g: Any, f: Any, t: Any, *others: Any, **named: Any) -> int:
    return 2 * x[0] * (x[1] * s[1] + g[0] * g[1] + f[0] * f[1] + f[1] * t[1])


def _adapter_backward_flops(dy: Any, z: Any, u: Any, need_x: Any, *inputs: Any, **named: Any) -> int:
    return 2 * _adapter_flops(*inputs[:5])


def _unchanged(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Weights are built in their own precision; whoever multiplies by them casts the result once."""
    return arguments


_CHAIN = "Tensor? s, Tensor m, Tensor? t, Tensor? bias"
_ADAPTER = "Tensor x, Tensor s, Tensor g, Tensor f, Tensor t, Tensor? down_bias, Tensor? up_bias"
_VALUES = "float factor, str activation, bool add_input, bool save, str backend"

registration.define_pair(
    "kronecker_sum", "(Tensor rule, Tensor weight, str backend) -> Tensor", _sum_forward, _sum_forward_fake,
    "(Tensor gradient, Tensor rule, Tensor weight) -> (Tensor, Tensor)", reference.sum_backward,
    _sum_backward_fake, autograd=_sum_autograd, setup_context=_sum_setup, cast=_unchanged, flops=_sum_flops,
    backward_flops=_sum_backward_flops,
)  # fmt: skip
registration.define_pair(
    "kronecker_chain", f"(Tensor x, {_CHAIN}, str backend) -> (Tensor, Tensor)", _chain_forward, _chain_forward_fake,
    f"(Tensor dy, Tensor x, Tensor u, {_CHAIN}, bool need_x, str backend) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
    _chain_backward, _chain_backward_fake, autograd=_chain_autograd, setup_context=_chain_setup,
    cast=registration.cast_all, flops=_chain_flops, backward_flops=_chain_backward_flops,
)  # fmt: skip
registration.define_pair(
    "kronecker_bottleneck", f"({_ADAPTER}, Tensor? residual, {_VALUES}) -> (Tensor, Tensor, Tensor)",
    _adapter_forward, _adapter_forward_fake,
    f"(Tensor dy, Tensor z, Tensor u, bool need_x, {_ADAPTER}, {_VALUES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _adapter_backward, _adapter_backward_fake, autograd=_adapter_autograd, setup_context=_adapter_setup,
    cast=_adapter_cast, flops=_adapter_flops, backward_flops=_adapter_backward_flops,
)  # fmt: skip
