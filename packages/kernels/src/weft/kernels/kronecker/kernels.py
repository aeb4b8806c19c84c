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

from weft.kernels.device_code import activate, derivative, load_block, store_block


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
        x_block = load_block(x, row, column, M, row_ok, inside)
        m_block = load_block(matrix, column, narrow, K, inside, narrow < K)
        acc = tl.dot(x_block, m_block, acc, input_precision=PRECISION)
    store_block(out, row, narrow, K, row_ok, narrow < K, acc)


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
    v_block = load_block(v, row, narrow, K, row_ok, narrow < K)
    for start in range(0, M, BD):
        column = start + tl.arange(0, BD)
        inside = column < M
        m_block = load_block(matrix, narrow, column, M, narrow < K, inside)
        acc = tl.dot(v_block, m_block, input_precision=PRECISION)
        if BIAS:
            acc += load_block(bias, row % blocks, column, M, row_ok, inside).to(tl.float32)
        if RESIDUAL:
            acc += load_block(residual, row, column, M, row_ok, inside).to(tl.float32)
        store_block(out, row, column, M, row_ok, inside, acc)


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
            x_block = load_block(x, token, p * M_IN + column, A * M_IN, ok, inside)
            s_block = load_block(s, column, k_in, K_IN, inside, k_in < K_IN)
            u_acc = tl.dot(x_block, s_block, u_acc, input_precision=PRECISION)
        u_block = u_acc.to(dtype)
        if SAVE:
            store_block(u, token, p * K_IN + k_in, A * K_IN, ok, k_in < K_IN, u_block)
        g_block = load_block(g, p * K_IN + k_in, rank, R, k_in < K_IN, in_rank)
        acc = tl.dot(u_block, g_block, acc, input_precision=PRECISION)
    if DOWN_BIAS:
        acc += tl.load(down_bias + rank, mask=in_rank, other=0.0).to(tl.float32)[None, :]
    z_block = acc.to(dtype)
    if SAVE:
        store_block(z, token, rank, R, ok, in_rank, z_block)
    h = (activate(z_block.to(tl.float32), ACT) * factor).to(dtype)
    for q in range(B):
        f_block = load_block(f, rank, q * K_OUT + k_out, B * K_OUT, in_rank, k_out < K_OUT)
        v_block = tl.dot(h, f_block, input_precision=PRECISION).to(dtype)
        for start in range(0, M_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < M_OUT
            t_block = load_block(t, k_out, column, M_OUT, k_out < K_OUT, inside)
            out = tl.dot(v_block, t_block, input_precision=PRECISION)
            if UP_BIAS:
                bias = tl.load(up_bias + q * M_OUT + column, mask=inside, other=0.0).to(tl.float32)
                out += factor * bias[None, :]
            place = q * M_OUT + column
            if RESIDUAL:
                out += load_block(residual, token, place, B * M_OUT, ok, inside).to(tl.float32)
            store_block(y, token, place, B * M_OUT, ok, inside, out)


@triton.jit
def compacter_backward(
    dy, z, s, g, f, t, dx, du, dz, dv, tokens, factor,
    A: tl.constexpr, M_IN: tl.constexpr, K_IN: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
    M_OUT: tl.constexpr, K_OUT: tl.constexpr, ACT: tl.constexpr, ADD_INPUT: tl.constexpr,
    NEED_X: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BR: tl.constexpr,
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
            g_out = load_block(dy, token, q * M_OUT + column, B * M_OUT, ok, inside).to(dtype)
            t_block = load_block(t, k_out, column, M_OUT, k_out < K_OUT, inside)
            v_acc = tl.dot(g_out, tl.trans(t_block), v_acc, input_precision=PRECISION)
        v_block = v_acc.to(dtype)
        store_block(dv, token, q * K_OUT + k_out, B * K_OUT, ok, k_out < K_OUT, v_block)
        f_block = load_block(f, rank, q * K_OUT + k_out, B * K_OUT, in_rank, k_out < K_OUT)
        dh = tl.dot(v_block, tl.trans(f_block), dh, input_precision=PRECISION)
    z_block = load_block(z, token, rank, R, ok, in_rank).to(tl.float32)
    dz_block = (dh * factor * derivative(z_block, ACT)).to(dtype)
    store_block(dz, token, rank, R, ok, in_rank, dz_block)
    for p in range(A):
        g_block = load_block(g, p * K_IN + k_in, rank, R, k_in < K_IN, in_rank)
        du_block = tl.dot(dz_block, tl.trans(g_block), input_precision=PRECISION).to(dtype)
        store_block(du, token, p * K_IN + k_in, A * K_IN, ok, k_in < K_IN, du_block)
        if NEED_X:
            for start in range(0, M_IN, BD):
                column = start + tl.arange(0, BD)
                inside = column < M_IN
                s_block = load_block(s, column, k_in, K_IN, inside, k_in < K_IN)
                out = tl.dot(du_block, tl.trans(s_block), input_precision=PRECISION)
                if ADD_INPUT:
                    out += load_block(dy, token, p * M_IN + column, A * M_IN, ok, inside).to(tl.float32)
                store_block(dx, token, p * M_IN + column, A * M_IN, ok, inside, out)
