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
    return _implementation(rule, backend).sum_forward(rule, weight)


def _sum_forward_fake(rule: Tensor, weight: Tensor, backend: str) -> Tensor:
    return rule.new_empty((rule.shape[0], rule.shape[2] * weight.shape[2], rule.shape[3] * weight.shape[3]))


def _sum_backward(
    gradient: Tensor, needs: list[bool], rule: Tensor, weight: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    return reference.sum_backward(gradient, rule, weight)


def _sum_flops(rule: Any, weight: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    slots, terms, a, b = rule
    return 2 * slots * terms * a * b * weight[2] * weight[3]


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


def _chain_backward(
    dy: Tensor, u: Tensor, needs: list[bool], x: Tensor, *arguments: Any
) -> tuple[Tensor | None, ...]:
    *tensors, backend = arguments
    factors = ThinFactors(*tensors)
    implementation = _implementation(x, backend, _thin(factors))
    return implementation.chain_backward(dy, x, x if factors.s is None else u, factors, needs[0])


def _chain_flops(x: Any, s: Any, m: Any, t: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    last = 0 if t is None else m[1] * t[1]
    first = 0 if s is None else x[1] * s[1]
    return 2 * x[0] * (first + m[0] * m[1] + last)


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


def _adapter_backward(
    dy: Tensor, z: Tensor, u: Tensor, needs: list[bool], *arguments: Any
) -> tuple[Tensor | None, ...]:
    call = _Adapter(*arguments)
    return _implementation(call.x, call.backend, call.factors.thin).adapter_backward(
        dy, z, u, call.x, call.factors, call.factor, call.activation, call.add_input, needs[0]
    )


def _adapter_flops(x: Any, s: Any, g: Any, f: Any, t: Any, *others: Any, **named: Any) -> int:
    return 2 * x[0] * (x[1] * s[1] + g[0] * g[1] + f[0] * f[1] + f[1] * t[1])


registration.Pair(
    name="kronecker_sum",
    arguments="Tensor rule, Tensor weight, str backend",
    gradients=("rule", "weight"),
    forward=_sum_forward,
    fake=_sum_forward_fake,
    backward=_sum_backward,
    flops=_sum_flops,
    backward_cost=2,
    casts=False,  # weights are built in their own precision; whoever multiplies by them casts the result once
).define()
registration.Pair(
    name="kronecker_chain",
    arguments="Tensor x, Tensor? s, Tensor m, Tensor? t, Tensor? bias, str backend",
    gradients=("x", *ThinFactors._fields),
    forward=_chain_forward,
    fake=_chain_forward_fake,
    backward=_chain_backward,
    flops=_chain_flops,
    backward_cost=2,
    casts=True,
    kept=1,
).define()
registration.Pair(
    name="kronecker_bottleneck",
    arguments="Tensor x, Tensor s, Tensor g, Tensor f, Tensor t, Tensor? down_bias, Tensor? up_bias, Tensor? residual, "
    "float factor, str activation, bool add_input, bool save, str backend",
    gradients=("x", *AdapterFactors._fields),
    forward=_adapter_forward,
    fake=_adapter_forward_fake,
    backward=_adapter_backward,
    flops=_adapter_flops,
    backward_cost=2,
    casts=True,
    kept=2,
    added="residual",
).define()
