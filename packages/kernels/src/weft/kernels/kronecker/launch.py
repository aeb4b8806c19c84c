"""Launches of the Kronecker kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels.backends import on_device
from weft.kernels.bottleneck.activations import activate
from weft.kernels.bottleneck.launch import outer_by_task
from weft.kernels.kronecker import kernels, reference
from weft.kernels.kronecker.factors import AdapterFactors, ThinFactors
from weft.kernels.plans.choosing import LaunchPlan, padded, plan_for

# Widest thin side the kernels keep in registers.
MAX_THIN = 128


def sum_forward(rule: Tensor, weight: Tensor) -> Tensor:
    """Matrices (slots, a·c, b·d) of rules (slots, terms, a, b) and weights (slots, terms, c, d)."""
    slots, terms, a, b = rule.shape
    c, d = weight.shape[2:]
    out = rule.new_empty(slots, a * c, b * d)
    if out.numel() and terms:
        with on_device(rule):
            kernels.kronecker_sum[(slots * a * b, -(-c // 32), -(-d // 64))](
                rule.contiguous(), weight.contiguous(), out, a, b, c, d, TERMS=terms, BU=32, BV=64, num_warps=4
            )  # fmt: skip
    return out


def contract(x: Tensor, matrix: Tensor) -> Tensor:
    """`reference.block_product` with a matrix of few columns."""
    width, thin = matrix.shape
    rows = x.numel() // width
    out = x.new_empty(x.shape[0], x.shape[1] // width * thin)
    if rows:
        plan = plan_for("block_contract", x, thin, rows)
        with on_device(x):
            kernels.block_contract[(-(-rows // plan.block_tokens),)](
                x.contiguous(), matrix.contiguous(), out, rows, M=width, K=thin, BK=padded(thin), **plan.constants(x)
            )  # fmt: skip
    return out


def expand(v: Tensor, matrix: Tensor, bias: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """`reference.expand` with a matrix of few rows."""
    thin, width = matrix.shape
    rows = v.numel() // thin
    blocks = v.shape[1] // thin
    out = v.new_empty(v.shape[0], blocks * width)
    if rows:
        plan = plan_for("block_expand", v, thin, rows)
        with on_device(v):
            kernels.block_expand[(-(-rows // plan.block_tokens),)](
                v.contiguous(), matrix.contiguous(), bias, residual, out, rows, blocks, M=width, K=thin,
                BIAS=bias is not None, RESIDUAL=residual is not None, BK=padded(thin), **plan.constants(v),
            )  # fmt: skip
    return out


def outer(wide: Tensor, narrow: Tensor) -> Tensor:
    """``wideᵀ · narrow`` for (rows, width) and (rows, thin), float32, in a fixed order."""
    if wide.shape[0] == 0:
        return wide.new_zeros(wide.shape[1], narrow.shape[1], dtype=torch.float32)
    return outer_by_task(wide.contiguous(), narrow.contiguous())[0][0]


def chain_forward(x: Tensor, factors: ThinFactors) -> tuple[Tensor, Tensor]:
    """As `reference.chain_forward`."""
    s, m, t, bias = factors
    u = x if s is None else contract(x, s)
    v = torch.mm(u, m)
    return (reference.expand(v, None, bias) if t is None else expand(v, t, bias)), u


def chain_backward(
    dy: Tensor, x: Tensor, u: Tensor, factors: ThinFactors, need_x: bool
) -> tuple[Tensor | None, ...]:
    """As `reference.chain_backward`."""
    s, m, t, bias = factors
    dy = dy.contiguous()
    dbias = None if bias is None else dy.sum(0)
    dt, dv = None, dy
    if t is not None:
        dv = contract(dy, t.t())
        dt = outer(dy.view(-1, t.shape[1]), torch.mm(u, m).view(-1, t.shape[0])).t()
    dm, dx = torch.mm(u.t(), dv), torch.mm(dv, m.t())
    if s is None:
        return (dx if need_x else None), None, dm, dt, dbias
    ds = outer(x.reshape(-1, s.shape[0]), dx.view(-1, s.shape[1]))
    return (expand(dx, s.t(), None) if need_x else None), ds, dm, dt, dbias


def adapter_forward(
    x: Tensor, factors: AdapterFactors, residual: Tensor | None, factor: float, activation: str, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.adapter_forward`; z and u are empty without `save`."""
    s, g, f, t = (matrix.contiguous() for matrix in factors[:4])
    tokens = x.shape[0]
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = x.new_empty((tokens, f.shape[1] // t.shape[0] * t.shape[1]), dtype=dtype)
    z = x.new_empty((tokens, g.shape[1]) if save else (0,))
    u = x.new_empty((tokens, g.shape[0]) if save else (0,))
    if tokens:
        plan = plan_for("compacter_forward", x, g.shape[1], tokens)
        with on_device(x):
            kernels.compacter_forward[(-(-tokens // plan.block_tokens),)](
                x.contiguous(), s, g, f, t, factors.down_bias, factors.up_bias,
                None if residual is None else residual.contiguous(), y, z, u, tokens, factor, ACT=activation,
                DOWN_BIAS=factors.down_bias is not None, UP_BIAS=factors.up_bias is not None,
                RESIDUAL=residual is not None, SAVE=save, **_constants(plan, s, g, f, t),
            )  # fmt: skip
    return y, z, u


def adapter_backward(
    dy: Tensor, z: Tensor, u: Tensor, x: Tensor, factors: AdapterFactors, factor: float, activation: str,
    add_input: bool, need_x: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """As `reference.adapter_backward`."""
    s, g, f, t = (matrix.contiguous() for matrix in factors[:4])
    x, dy = x.contiguous(), dy.contiguous()
    tokens = x.shape[0]
    dx, dz, du = torch.empty_like(x), torch.empty_like(z), torch.empty_like(u)
    dv = x.new_empty(tokens, f.shape[1])
    if tokens:
        plan = plan_for("compacter_backward", x, g.shape[1], tokens)
        with on_device(x):
            kernels.compacter_backward[(-(-tokens // plan.block_tokens),)](
                dy, z, s, g, f, t, dx, du, dz, dv, tokens, factor, ACT=activation, ADD_INPUT=add_input,
                NEED_X=need_x, **_constants(plan, s, g, f, t),
            )  # fmt: skip
    # What is left are sums over tokens of thin tensors, and two passes over x and dy with a thin side.
    h = activate(z, activation) * factor
    v = torch.mm(h, f)
    incoming = dy.to(x.dtype)
    ds = outer(x.view(-1, s.shape[0]), du.view(-1, s.shape[1]))
    dt = outer(incoming.reshape(-1, t.shape[1]), v.view(-1, t.shape[0])).t()
    ddown_bias, dup_bias = dz.sum(0, dtype=torch.float32), incoming.sum(0, dtype=torch.float32) * factor
    return (dx if need_x else None), ds, outer(u, dz), outer(h, dv), dt, ddown_bias, dup_bias


def _constants(plan: LaunchPlan, s: Tensor, g: Tensor, f: Tensor, t: Tensor) -> dict[str, Any]:
    """Sizes, blocks and precision of a whole adapter."""
    (m_in, k_in), (k_out, m_out), rank = s.shape, t.shape, g.shape[1]
    return {
        "A": g.shape[0] // k_in,
        "M_IN": m_in,
        "K_IN": k_in,
        "R": rank,
        "B": f.shape[1] // k_out,
        "M_OUT": m_out,
        "K_OUT": k_out,
        "BI": padded(k_in),
        "BO": padded(k_out),
        "BR": padded(rank),
        **plan.constants(s),
    }
