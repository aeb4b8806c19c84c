"""Triton kernels of Kronecker sums. Only device code; launches are in `launch`.

Matrices as in `factors`: S (m, K), G (aK, r), F (r, bK), T (K, k). K is padded to BK columns, r to BR (both
masked; matrix units need at least 16). Every accumulator is float32; thin intermediates are rounded to the
input dtype.
"""

# Device pointers and blocks have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from weft.kernels.device_code import activate, derivative


@triton.jit
def kronecker_sum(rule, weight, out, a, b, c, d, TERMS: tl.constexpr, BU: tl.constexpr, BV: tl.constexpr):
    """W[p·c + u, q·d + v] = Σ_i A_i[p, q]·B_i[u, v], each element written once.

    Grid (slots · a · b, ceil(c / BU), ceil(d / BV)). rule (slots, TERMS, a, b), weight (slots, TERMS, c, d),
    out (slots, a·c, b·d).
    """
    block = tl.program_id(0)
    slot = (block // (a * b)).to(tl.int64)
    p, q = (block // b) % a, block % b
    u = tl.program_id(1) * BU + tl.arange(0, BU)
    v = tl.program_id(2) * BV + tl.arange(0, BV)
    both = (u < c)[:, None] & (v < d)[None, :]
    acc = tl.zeros((BU, BV), tl.float32)
    for term in tl.static_range(TERMS):
        factor = tl.load(rule + ((slot * TERMS + term) * a + p) * b + q).to(tl.float32)
        place = ((slot * TERMS + term) * c + u[:, None]) * d + v[None, :]
        acc += factor * tl.load(weight + place, mask=both, other=0.0).to(tl.float32)
    place = (slot * a * c + (p * c + u)[:, None]) * (b * d) + (q * d + v)[None, :]
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=both)


@triton.jit
def block_contract(
    x, matrix, out, rows, M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr,
    BD: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write x·matrix for x (rows, M), matrix (M, K) with few columns. Grid (ceil(rows / BT),)."""
    row = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    row_ok = row < rows
    narrow = tl.arange(0, BK)
    acc = tl.zeros((BT, BK), tl.float32)
    for start in range(0, M, BD):
        column = start + tl.arange(0, BD)
        inside = column < M
        x_block = tl.load(
            x + row[:, None] * M + column[None, :], mask=row_ok[:, None] & inside[None, :], other=0.0
        )
        m_block = tl.load(
            matrix + column[:, None] * K + narrow[None, :],
            mask=inside[:, None] & (narrow < K)[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(x_block, m_block, acc, input_precision=PRECISION)
    tl.store(
        out + row[:, None] * K + narrow[None, :], acc.to(out.dtype.element_ty),
        mask=row_ok[:, None] & (narrow < K)[None, :],
    )  # fmt: skip


@triton.jit
def block_expand(
    v, matrix, bias, residual, out, rows, blocks, M: tl.constexpr, K: tl.constexpr, BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Out = v·matrix + bias[row mod blocks] + residual for v (rows, K), matrix (K, M); out is written once.

    Grid (ceil(rows / BT),). bias (blocks, M), residual and out (rows, M).
    """
    row = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    row_ok = row < rows
    narrow = tl.arange(0, BK)
    v_block = tl.load(
        v + row[:, None] * K + narrow[None, :], mask=row_ok[:, None] & (narrow < K)[None, :], other=0.0
    )
    for start in range(0, M, BD):
        column = start + tl.arange(0, BD)
        inside = column < M
        both = row_ok[:, None] & inside[None, :]
        m_block = tl.load(
            matrix + narrow[:, None] * M + column[None, :],
            mask=(narrow < K)[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(v_block, m_block, input_precision=PRECISION)
        if BIAS:
            place = (row % blocks)[:, None] * M + column[None, :]
            acc += tl.load(bias + place, mask=both, other=0.0).to(tl.float32)
        place = row[:, None] * M + column[None, :]
        if RESIDUAL:
            acc += tl.load(residual + place, mask=both, other=0.0).to(tl.float32)
        tl.store(out + place, acc.to(out.dtype.element_ty), mask=both)


@triton.jit
def compacter_forward(
    x, s, g, f, t, down_bias, up_bias, residual, y, z, u, tokens, factor,
    A: tl.constexpr, M_IN: tl.constexpr, K_IN: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
    M_OUT: tl.constexpr, K_OUT: tl.constexpr, ACT: tl.constexpr, DOWN_BIAS: tl.constexpr,
    UP_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SAVE: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """A whole Compacter adapter for one tile of tokens: x is read once, y written once.

    Grid (ceil(T / BT),). x (T, A·M_IN), y and residual (T, B·M_OUT), z (T, R), u (T, A·K_IN); s (M_IN, K_IN),
    g (A·K_IN, R), f (R, B·K_OUT), t (K_OUT, M_OUT). Masked: tails of T, M, K, R. Accumulators: u_p, z, v_q,
    y_q.
    """
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    ok = token < tokens
    rank = tl.arange(0, BR)
    in_rank = rank < R
    k_in = tl.arange(0, BI)
    k_out = tl.arange(0, BO)
    dtype = x.dtype.element_ty
    acc = tl.zeros((BT, BR), tl.float32)
    for p in range(A):
        u_acc = tl.zeros((BT, BI), tl.float32)
        for start in range(0, M_IN, BD):
            column = start + tl.arange(0, BD)
            inside = column < M_IN
            x_block = tl.load(
                x + token[:, None] * (A * M_IN) + (p * M_IN + column)[None, :],
                mask=ok[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            s_block = tl.load(
                s + column[:, None] * K_IN + k_in[None, :],
                mask=inside[:, None] & (k_in < K_IN)[None, :], other=0.0,
            )  # fmt: skip
            u_acc = tl.dot(x_block, s_block, u_acc, input_precision=PRECISION)
        u_block = u_acc.to(dtype)
        if SAVE:
            tl.store(
                u + token[:, None] * (A * K_IN) + (p * K_IN + k_in)[None, :], u_block,
                mask=ok[:, None] & (k_in < K_IN)[None, :],
            )  # fmt: skip
        g_block = tl.load(
            g + (p * K_IN + k_in)[:, None] * R + rank[None, :],
            mask=(k_in < K_IN)[:, None] & in_rank[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(u_block, g_block, acc, input_precision=PRECISION)
    if DOWN_BIAS:
        acc += tl.load(down_bias + rank, mask=in_rank, other=0.0).to(tl.float32)[None, :]
    z_block = acc.to(dtype)
    if SAVE:
        tl.store(z + token[:, None] * R + rank[None, :], z_block, mask=ok[:, None] & in_rank[None, :])
    h = (activate(z_block.to(tl.float32), ACT) * factor).to(dtype)
    for q in range(B):
        f_block = tl.load(
            f + rank[:, None] * (B * K_OUT) + (q * K_OUT + k_out)[None, :],
            mask=in_rank[:, None] & (k_out < K_OUT)[None, :], other=0.0,
        )  # fmt: skip
        v_block = tl.dot(h, f_block, input_precision=PRECISION).to(dtype)
        for start in range(0, M_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < M_OUT
            both = ok[:, None] & inside[None, :]
            t_block = tl.load(
                t + k_out[:, None] * M_OUT + column[None, :],
                mask=(k_out < K_OUT)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            out = tl.dot(v_block, t_block, input_precision=PRECISION)
            if UP_BIAS:
                bias = tl.load(up_bias + q * M_OUT + column, mask=inside, other=0.0).to(tl.float32)
                out += factor * bias[None, :]
            place = token[:, None] * (B * M_OUT) + (q * M_OUT + column)[None, :]
            if RESIDUAL:
                out += tl.load(residual + place, mask=both, other=0.0).to(tl.float32)
            tl.store(y + place, out.to(y.dtype.element_ty), mask=both)


@triton.jit
def compacter_backward(
    dy, z, s, g, f, t, dx, du, dz, dv, tokens, factor,
    A: tl.constexpr, M_IN: tl.constexpr, K_IN: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
    M_OUT: tl.constexpr, K_OUT: tl.constexpr, ACT: tl.constexpr, ADD_INPUT: tl.constexpr,
    NEED_X: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
    BI: tl.constexpr, BO: tl.constexpr,
    BR: tl.constexpr,
):  # fmt: skip
    """Dx and the thin gradients du (T, A·K_IN), dz (T, R), dv (T, B·K_OUT) of one tile of tokens.

    Grid (ceil(T / BT),). dy is read once, twice where it is added to dx. Masked as in `compacter_forward`.
    """
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    ok = token < tokens
    rank = tl.arange(0, BR)
    in_rank = rank < R
    k_in = tl.arange(0, BI)
    k_out = tl.arange(0, BO)
    dtype = z.dtype.element_ty
    dh = tl.zeros((BT, BR), tl.float32)
    for q in range(B):
        v_acc = tl.zeros((BT, BO), tl.float32)
        for start in range(0, M_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < M_OUT
            g_out = tl.load(
                dy + token[:, None] * (B * M_OUT) + (q * M_OUT + column)[None, :],
                mask=ok[:, None] & inside[None, :], other=0.0,
            ).to(dtype)  # fmt: skip
            t_block = tl.load(
                t + k_out[:, None] * M_OUT + column[None, :],
                mask=(k_out < K_OUT)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            v_acc = tl.dot(g_out, tl.trans(t_block), v_acc, input_precision=PRECISION)
        v_block = v_acc.to(dtype)
        tl.store(
            dv + token[:, None] * (B * K_OUT) + (q * K_OUT + k_out)[None, :], v_block,
            mask=ok[:, None] & (k_out < K_OUT)[None, :],
        )  # fmt: skip
        f_block = tl.load(
            f + rank[:, None] * (B * K_OUT) + (q * K_OUT + k_out)[None, :],
            mask=in_rank[:, None] & (k_out < K_OUT)[None, :], other=0.0,
        )  # fmt: skip
        dh = tl.dot(v_block, tl.trans(f_block), dh, input_precision=PRECISION)
    narrow = token[:, None] * R + rank[None, :]
    narrow_ok = ok[:, None] & in_rank[None, :]
    z_block = tl.load(z + narrow, mask=narrow_ok, other=0.0).to(tl.float32)
    dz_block = (dh * factor * derivative(z_block, ACT)).to(dtype)
    tl.store(dz + narrow, dz_block, mask=narrow_ok)
    for p in range(A):
        g_block = tl.load(
            g + (p * K_IN + k_in)[:, None] * R + rank[None, :],
            mask=(k_in < K_IN)[:, None] & in_rank[None, :], other=0.0,
        )  # fmt: skip
        du_block = tl.dot(dz_block, tl.trans(g_block), input_precision=PRECISION).to(dtype)
        tl.store(
            du + token[:, None] * (A * K_IN) + (p * K_IN + k_in)[None, :], du_block,
            mask=ok[:, None] & (k_in < K_IN)[None, :],
        )  # fmt: skip
        if NEED_X:
            for start in range(0, M_IN, BD):
                column = start + tl.arange(0, BD)
                inside = column < M_IN
                both = ok[:, None] & inside[None, :]
                s_block = tl.load(
                    s + column[:, None] * K_IN + k_in[None, :],
                    mask=inside[:, None] & (k_in < K_IN)[None, :], other=0.0,
                )  # fmt: skip
                out = tl.dot(du_block, tl.trans(s_block), input_precision=PRECISION)
                place = token[:, None] * (A * M_IN) + (p * M_IN + column)[None, :]
                if ADD_INPUT:
                    out += tl.load(dy + place, mask=both, other=0.0).to(tl.float32)
                tl.store(dx + place, out.to(dx.dtype.element_ty), mask=both)
