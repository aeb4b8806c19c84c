"""Launches of the Kronecker kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.kernels.backends import architecture, dot_precision
from weft.kernels.bottleneck.activations import activate
from weft.kernels.bottleneck.launch import Route, outer_by_task
from weft.kernels.device import on_device
from weft.kernels.kronecker import kernels
from weft.kernels.plans import Tile, choose_tile, padded

# Widest thin side the kernels keep in registers.
MAX_THIN = 128


def serves(*thin: int) -> bool:
    """Whether all thin sizes fit the kernels."""
    return max(thin) <= MAX_THIN


def _plan(kernel: str, x: Tensor, inner: int, tokens: int) -> Tile:
    return choose_tile(kernel, architecture(x.device), padded(inner), x.element_size(), tokens)


def kronecker_sum(rule: Tensor, weight: Tensor) -> Tensor:
    """Matrices (slots, a·c, b·d) of rules (slots, terms, a, b) and weights (slots, terms, c, d)."""
    slots, terms, a, b = rule.shape
    c, d = weight.shape[2:]
    out = rule.new_empty(slots, a * c, b * d)
    if out.numel() and terms:
        with on_device(rule):
            kernels.kronecker_sum[(slots * a * b, -(-c // 32), -(-d // 64))](
                rule.contiguous(),
                weight.contiguous(),
                out,
                a,
                b,
                c,
                d,
                TERMS=terms,
                BU=32,
                BV=64,
                num_warps=4,
            )
    return out


def contract(x: Tensor, matrix: Tensor) -> Tensor:
    """`chain.block_product` with a matrix of few columns."""
    width, thin = matrix.shape
    rows = x.numel() // width
    out = x.new_empty(x.shape[0], x.shape[1] // width * thin)
    if rows:
        tile = _plan("block_contract", x, thin, rows)
        with on_device(x):
            kernels.block_contract[(-(-rows // tile.block_tokens),)](
                x.contiguous(), matrix.contiguous(), out, rows, M=width, K=thin,
                PRECISION=dot_precision(x.dtype), BT=tile.block_tokens, BD=tile.block_width, BK=padded(thin),
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return out


def expand(v: Tensor, matrix: Tensor, bias: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """`chain.expand` with a matrix of few rows."""
    thin, width = matrix.shape
    rows = v.numel() // thin
    blocks = v.shape[1] // thin
    out = v.new_empty(v.shape[0], blocks * width)
    if rows:
        tile = _plan("block_expand", v, thin, rows)
        with on_device(v):
            kernels.block_expand[(-(-rows // tile.block_tokens),)](
                v.contiguous(), matrix.contiguous(), bias, residual, out, rows, blocks, M=width, K=thin,
                BIAS=bias is not None, RESIDUAL=residual is not None, PRECISION=dot_precision(v.dtype),
                BT=tile.block_tokens, BD=tile.block_width, BK=padded(thin),
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return out


def outer(wide: Tensor, narrow: Tensor) -> Tensor:
    """``wideᵀ · narrow`` for (rows, width) and (rows, thin), float32, in a fixed order."""
    if wide.shape[0] == 0:
        return wide.new_zeros(wide.shape[1], narrow.shape[1], dtype=torch.float32)
    route = Route(wide.shape[0], 1, None, None, None)
    return outer_by_task(wide.contiguous(), narrow.contiguous(), route)[0][0]


def compacter_forward(
    x: Tensor, s: Tensor, g: Tensor, f: Tensor, t: Tensor, down_bias: Tensor | None, up_bias: Tensor | None,
    residual: Tensor | None, factor: float, activation: str, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The adapter's output and, if `save`, z and u; all tensors contiguous."""
    tokens = x.shape[0]
    sizes = _sizes(s, g, f, t)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = x.new_empty((tokens, sizes["B"] * sizes["M_OUT"]), dtype=dtype)
    z = x.new_empty((tokens, g.shape[1]) if save else (0,))
    u = x.new_empty((tokens, g.shape[0]) if save else (0,))
    if tokens:
        tile = _plan("compacter_forward", x, g.shape[1], tokens)
        with on_device(x):
            kernels.compacter_forward[(-(-tokens // tile.block_tokens),)](
                x, s, g, f, t, down_bias, up_bias, residual, y, z, u, tokens, factor, **sizes, ACT=activation,
                DOWN_BIAS=down_bias is not None, UP_BIAS=up_bias is not None, RESIDUAL=residual is not None,
                SAVE=save, PRECISION=dot_precision(x.dtype), **_blocks(tile, s, g, t),
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return y, z, u


def compacter_backward(
    dy: Tensor, z: Tensor, u: Tensor, x: Tensor, s: Tensor, g: Tensor, f: Tensor, t: Tensor, factor: float,
    activation: str, add_input: bool, need_x: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, s, g, f, t, down_bias and up_bias; all tensors contiguous."""
    tokens = x.shape[0]
    dx, dz, du = torch.empty_like(x), torch.empty_like(z), torch.empty_like(u)
    dv = x.new_empty(tokens, f.shape[1])
    sizes = _sizes(s, g, f, t)
    if tokens:
        tile = _plan("compacter_backward", x, g.shape[1], tokens)
        with on_device(x):
            kernels.compacter_backward[(-(-tokens // tile.block_tokens),)](
                dy, z, s, g, f, t, dx, du, dz, dv, tokens, factor, **sizes, ACT=activation,
                ADD_INPUT=add_input, NEED_X=need_x, PRECISION=dot_precision(x.dtype),
                **_blocks(tile, s, g, t),
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    # What is left are sums over tokens of thin tensors, and two passes over x and dy with a thin side.
    h = activate(z, activation) * factor
    v = torch.mm(h, f)
    incoming = dy.to(x.dtype)
    ds = outer(x.view(-1, s.shape[0]), du.view(-1, s.shape[1]))
    dt = outer(incoming.reshape(-1, t.shape[1]), v.view(-1, t.shape[0])).t()
    dg, df = outer(u, dz), outer(h, dv)
    return dx, ds, dg, df, dt, dz.sum(0, dtype=torch.float32), incoming.sum(0, dtype=torch.float32) * factor


def _sizes(s: Tensor, g: Tensor, f: Tensor, t: Tensor) -> dict[str, int]:
    return {
        "A": g.shape[0] // s.shape[1],
        "M_IN": s.shape[0],
        "K_IN": s.shape[1],
        "R": g.shape[1],
        "B": f.shape[1] // t.shape[0],
        "M_OUT": t.shape[1],
        "K_OUT": t.shape[0],
    }


def _blocks(tile: Tile, s: Tensor, g: Tensor, t: Tensor) -> dict[str, int]:
    return {
        "BT": tile.block_tokens,
        "BD": tile.block_width,
        "BI": padded(s.shape[1]),
        "BO": padded(t.shape[0]),
        "BR": padded(g.shape[1]),
    }
