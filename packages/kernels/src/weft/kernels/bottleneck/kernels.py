"""Triton kernels of the adapter bottleneck. Only device code; launches are in `launch`.

Shapes and names: T tokens, tiles of BT tokens of one task, d in blocks of BD, r padded to BR (masked). All
tensors are contiguous. Every accumulator is float32. `tiles` (5, tiles) holds the task of each tile or -1 for
identity, its first position and the one after its last, its down slot and its up slot. M is a mask of dropout over
its probability of keeping, DROP... the threshold it is drawn with or 0 for none.
"""

# Device pointers and blocks have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from weft.kernels import dropout
from weft.kernels.device_code import (
    activate,
    derivative,
    drop,
    load_block,
    store_block,
    tile_slots,
    tile_tokens,
)

_OUTPUT, _HIDDEN, _INPUT = (
    tl.constexpr(stream) for stream in (dropout.OUTPUT, dropout.HIDDEN, dropout.INPUT)
)


@triton.jit
def tile_scale(scale, task, columns, mask, factor, SCALE: tl.constexpr, D: tl.constexpr):
    """Scale of a tile: `factor`, or times an entry of a (tasks, 1) or (tasks, D) table."""
    if SCALE == "task":
        value = factor * tl.load(scale + task).to(tl.float32)
    elif SCALE == "channel":
        entries = tl.load(scale + task.to(tl.int64) * D + columns, mask=mask, other=0.0)
        value = factor * entries.to(tl.float32)[None, :]
    else:
        value = factor
    return value


@triton.jit
def bottleneck_forward(
    x, down, up, down_bias, up_bias, residual, scale, order, tiles, seed, y, z, statistics, tokens, length, factor,
    D_IN: tl.constexpr, D_OUT: tl.constexpr, R: tl.constexpr, ACT: tl.constexpr, ROUTED: tl.constexpr,
    DOWN_BIAS: tl.constexpr, UP_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALE: tl.constexpr,
    NORM: tl.constexpr, NORM_EPS: tl.constexpr, DROP_INPUT: tl.constexpr, DROP_HIDDEN: tl.constexpr,
    DROP: tl.constexpr, SAVE: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """One program per tile: z = M·n·down + b, y = residual + M·s·(M·act(z)·up + b).

    Grid (tiles,). x (T, D_IN), y and residual (T, D_OUT), z (T, R), statistics (2, T) float32 mean and 1/std.
    With NORM, `down` is γ∘W_down and `down_bias` (slots, 2, R) holds the bias with β·W_down and the column sum of
    `down` as rounded, so that LN(x)·W = rstd·(x·down - mean·column sum) + bias needs no second pass over
    x; it excludes DROP_INPUT. Masked: the tail of a tile, columns beyond D_IN and D_OUT, ranks beyond R.
    Accumulators: z, y, Σx, Σx².
    """
    tile = tl.program_id(0)
    token, valid = tile_tokens(order, tiles, tile, tokens, length, ROUTED, BT)
    if ROUTED:
        count = tl.num_programs(0)
        if tl.load(tiles + count + tile) >= tl.load(tiles + 2 * count + tile):
            return
    task, down_slot, up_slot = tile_slots(tiles, tile, ROUTED)
    bias_place = down_slot * (2 * R if NORM else R)
    rank = tl.arange(0, BR)
    in_rank = rank < R
    dtype = x.dtype.element_ty
    if task >= 0:
        acc = tl.zeros((BT, BR), tl.float32)
        total = tl.zeros((BT,), tl.float32)
        squares = tl.zeros((BT,), tl.float32)
        for start in range(0, D_IN, BD):
            column = start + tl.arange(0, BD)
            inside = column < D_IN
            x_block = load_block(x, token, column, D_IN, valid, inside)
            w_block = load_block(down + down_slot * D_IN * R, column, rank, R, inside, in_rank)
            if DROP_INPUT > 0:
                kept = drop(x_block.to(tl.float32), seed, token[:, None], column[None, :], DROP_INPUT, _INPUT)
                x_block = kept.to(dtype)
            acc = tl.dot(x_block, w_block, acc, input_precision=PRECISION)
            if NORM:
                wide = x_block.to(tl.float32)
                total += tl.sum(wide, 1)
                squares += tl.sum(wide * wide, 1)
        if NORM:
            mean = total / D_IN
            rstd = 1.0 / tl.sqrt(tl.maximum(squares / D_IN - mean * mean, 0.0) + NORM_EPS)
            sums = tl.load(down_bias + bias_place + R + rank, mask=in_rank, other=0.0)
            acc = rstd[:, None] * (acc - mean[:, None] * sums[None, :])
            if SAVE:
                tl.store(statistics + token, mean, mask=valid)
                tl.store(statistics + tokens + token, rstd, mask=valid)
        if DOWN_BIAS:
            acc += tl.load(down_bias + bias_place + rank, mask=in_rank, other=0.0).to(tl.float32)[None, :]
        z_block = acc.to(dtype)
        if SAVE:
            store_block(z, token, rank, R, valid, in_rank, z_block)
        hidden = activate(z_block.to(tl.float32), ACT)
        h = drop(hidden, seed, token[:, None], rank[None, :], DROP_HIDDEN, _HIDDEN).to(dtype)
        for start in range(0, D_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < D_OUT
            both = valid[:, None] & inside[None, :]
            u_block = load_block(up + up_slot * R * D_OUT, rank, column, D_OUT, in_rank, inside)
            out = tl.dot(h, u_block, input_precision=PRECISION)
            if UP_BIAS:
                bias = tl.load(up_bias + up_slot * D_OUT + column, mask=inside, other=0.0).to(tl.float32)
                out += bias[None, :]
            out *= tile_scale(scale, task, column, inside, factor, SCALE, D_OUT)
            out = drop(out, seed, token[:, None], column[None, :], DROP, _OUTPUT)
            place = token[:, None] * D_OUT + column[None, :]
            if RESIDUAL:
                out += tl.load(residual + place, mask=both, other=0.0).to(tl.float32)
            tl.store(y + place, out.to(y.dtype.element_ty), mask=both)
    else:
        if SAVE:
            store_block(z, token, rank, R, valid, in_rank, tl.zeros((BT, BR), dtype))
            if NORM:
                tl.store(statistics + token, tl.zeros((BT,), tl.float32), mask=valid)
                tl.store(statistics + tokens + token, tl.zeros((BT,), tl.float32), mask=valid)
        for start in range(0, D_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < D_OUT
            out = tl.zeros((BT, BD), tl.float32)
            if RESIDUAL:
                out = load_block(residual, token, column, D_OUT, valid, inside).to(tl.float32)
            store_block(y, token, column, D_OUT, valid, inside, out)


@triton.jit
def bottleneck_backward_input(
    dy, x, z, statistics, down, up, down_bias, scale, order, tiles, seed, dz, dx, tokens, length, factor,
    D_IN: tl.constexpr, D_OUT: tl.constexpr, R: tl.constexpr, ACT: tl.constexpr, ROUTED: tl.constexpr,
    DOWN_BIAS: tl.constexpr, SCALE: tl.constexpr, NORM: tl.constexpr, DROP_INPUT: tl.constexpr,
    DROP_HIDDEN: tl.constexpr, DROP: tl.constexpr, ADD_INPUT: tl.constexpr, NEED_X: tl.constexpr,
    PRECISION: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """One program per tile: dz = M∘(s·M·dy·upᵀ)∘act'(z) and dx = LN'(M∘dz·downᵀ) (+ dy).

    Grid (tiles,). dz (T, R) and dx (T, D_IN) are written; dz of identity tokens is set to zero. The two row
    means of the LayerNorm gradient come from r-wide quantities: mean(du) = dz·column sum / D and mean(du∘x̂)
    = dz·(z - bias) / D, since x̂·down = z - bias. Accumulators: dh, dx.
    """
    tile = tl.program_id(0)
    token, valid = tile_tokens(order, tiles, tile, tokens, length, ROUTED, BT)
    if ROUTED:
        count = tl.num_programs(0)
        if tl.load(tiles + count + tile) >= tl.load(tiles + 2 * count + tile):
            return
    task, down_slot, up_slot = tile_slots(tiles, tile, ROUTED)
    bias_place = down_slot * (2 * R if NORM else R)
    rank = tl.arange(0, BR)
    in_rank = rank < R
    narrow = token[:, None] * R + rank[None, :]
    narrow_mask = valid[:, None] & in_rank[None, :]
    dtype = z.dtype.element_ty
    if task >= 0:
        dh = tl.zeros((BT, BR), tl.float32)
        for start in range(0, D_OUT, BD):
            column = start + tl.arange(0, BD)
            inside = column < D_OUT
            g = load_block(dy, token, column, D_OUT, valid, inside).to(tl.float32)
            g = drop(g, seed, token[:, None], column[None, :], DROP, _OUTPUT)
            if SCALE == "channel":
                g *= tile_scale(scale, task, column, inside, factor, SCALE, D_OUT)
            u_block = load_block(up + up_slot * R * D_OUT, rank, column, D_OUT, in_rank, inside)
            dh = tl.dot(g.to(dtype), tl.trans(u_block), dh, input_precision=PRECISION)
        if SCALE != "channel":
            dh *= tile_scale(scale, task, rank, in_rank, factor, SCALE, D_OUT)
        z_block = tl.load(z + narrow, mask=narrow_mask, other=0.0).to(tl.float32)
        dh = drop(dh, seed, token[:, None], rank[None, :], DROP_HIDDEN, _HIDDEN)
        dz_block = (dh * derivative(z_block, ACT)).to(dtype)
        tl.store(dz + narrow, dz_block, mask=narrow_mask)
        if NEED_X:
            dz_wide = dz_block.to(tl.float32)
            if NORM:
                mean = tl.load(statistics + token, mask=valid, other=0.0)
                rstd = tl.load(statistics + tokens + token, mask=valid, other=0.0)
                sums = tl.load(down_bias + bias_place + R + rank, mask=in_rank, other=0.0)
                first = tl.sum(dz_wide * sums[None, :], 1) / D_IN
                bias = tl.load(down_bias + bias_place + rank, mask=in_rank, other=0.0).to(tl.float32)
                second = tl.sum(dz_wide * (z_block - bias[None, :]), 1) / D_IN
            for start in range(0, D_IN, BD):
                column = start + tl.arange(0, BD)
                inside = column < D_IN
                both = valid[:, None] & inside[None, :]
                place = token[:, None] * D_IN + column[None, :]
                w_block = load_block(down + down_slot * D_IN * R, column, rank, R, inside, in_rank)
                du = tl.dot(dz_block, tl.trans(w_block), input_precision=PRECISION)
                du = drop(du, seed, token[:, None], column[None, :], DROP_INPUT, _INPUT)
                if NORM:
                    x_block = tl.load(x + place, mask=both, other=0.0).to(tl.float32)
                    x_hat = (x_block - mean[:, None]) * rstd[:, None]
                    du = rstd[:, None] * (du - first[:, None] - x_hat * second[:, None])
                if ADD_INPUT:
                    du += tl.load(dy + place, mask=both, other=0.0).to(tl.float32)
                tl.store(dx + place, du.to(dx.dtype.element_ty), mask=both)
    else:
        tl.store(dz + narrow, tl.zeros((BT, BR), dtype), mask=narrow_mask)
        if NEED_X:
            for start in range(0, D_IN, BD):
                column = start + tl.arange(0, BD)
                inside = column < D_IN
                du = tl.zeros((BT, BD), tl.float32)
                if ADD_INPUT:
                    du = load_block(dy, token, column, D_IN, valid, inside).to(tl.float32)
                store_block(dx, token, column, D_IN, valid, inside, du)


@triton.jit
def outer_partials(
    wide, narrow, statistics, order, bounds, seed, partial, wide_sum, narrow_sum, tokens, length, tasks, splits,
    D: tl.constexpr, R: tl.constexpr, ACT: tl.constexpr, ROUTED: tl.constexpr, NORM: tl.constexpr,
    DROP_WIDE: tl.constexpr, WIDE_STREAM: tl.constexpr, DROP_NARROW: tl.constexpr, WIDE_SUM: tl.constexpr,
    NARROW_SUM: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Partial sums of wide[t]ᵀ·act(narrow[t]) over one share of one task's tokens, for a slice of D columns.

    Grid (ceil(D / BD) · ceil(R / BR), tasks, splits). wide (T, D), narrow (T, R); task a owns positions
    bounds[a] to bounds[a + 1]. partial (splits, tasks, D, R) float32 is written everywhere, so that its sum over
    splits is the gradient in a fixed order. With NORM `wide` is normalised on the fly; DROP_WIDE and DROP_NARROW are
    thresholds of dropout.
    WIDE_SUM also writes Σ wide (splits, tasks, D), NARROW_SUM Σ narrow (splits, tasks, R). Masked: tails of
    D, R and of the share.
    """
    slices = tl.cdiv(D, BD)
    slice_index, rank_block = tl.program_id(0) % slices, tl.program_id(0) // slices
    task, split = tl.program_id(1), tl.program_id(2)
    column = slice_index * BD + tl.arange(0, BD)
    inside = column < D
    rank = rank_block * BR + tl.arange(0, BR)
    in_rank = rank < R
    begin = tl.load(bounds + task)
    end = tl.load(bounds + task + 1)
    share = tl.cdiv(tl.cdiv(end - begin, splits), BT) * BT
    begin += split * share
    end = tl.minimum(end, begin + share)
    acc = tl.zeros((BD, BR), tl.float32)
    wide_acc = tl.zeros((BD,), tl.float32)
    narrow_acc = tl.zeros((BR,), tl.float32)
    dtype = narrow.dtype.element_ty
    for start in range(begin, end, BT):
        position = start + tl.arange(0, BT)
        valid = position < end
        if ROUTED:
            row = tl.load(order + position // length, mask=valid, other=0).to(tl.int64)
            token = row * length + position % length
        else:
            token = position.to(tl.int64)
        w_block = load_block(wide, token, column, D, valid, inside)
        n_block = load_block(narrow, token, rank, R, valid, in_rank)
        if NORM:
            mean = tl.load(statistics + token, mask=valid, other=0.0)
            rstd = tl.load(statistics + tokens + token, mask=valid, other=0.0)
            w_block = ((w_block.to(tl.float32) - mean[:, None]) * rstd[:, None]).to(dtype)
        if DROP_WIDE > 0:
            kept = drop(w_block.to(tl.float32), seed, token[:, None], column[None, :], DROP_WIDE, WIDE_STREAM)
            w_block = kept.to(dtype)
        if ACT != "identity" or DROP_NARROW > 0:
            hidden = activate(n_block.to(tl.float32), ACT)
            n_block = drop(hidden, seed, token[:, None], rank[None, :], DROP_NARROW, _HIDDEN).to(dtype)
        acc = tl.dot(tl.trans(w_block.to(dtype)), n_block, acc, input_precision=PRECISION)
        if WIDE_SUM:
            wide_acc += tl.sum(w_block.to(tl.float32), 0)
        if NARROW_SUM:
            narrow_acc += tl.sum(n_block.to(tl.float32), 0)
    slot = (split * tasks + task).to(tl.int64)
    store_block(partial + slot * D * R, column, rank, R, inside, in_rank, acc)
    if WIDE_SUM and rank_block == 0:
        tl.store(wide_sum + slot * D + column, wide_acc, mask=inside)
    if NARROW_SUM and slice_index == 0:
        tl.store(narrow_sum + slot * R + rank, narrow_acc, mask=in_rank)


@triton.jit
def grouped_product(
    a, weight, bias, scale, residual, z, order, tiles, seed, out, tokens, length, factor,
    K: tl.constexpr, N: tl.constexpr, TRANSPOSED: tl.constexpr, ACT: tl.constexpr, BACK_ACT: tl.constexpr,
    BIAS: tl.constexpr, IN_SCALE: tl.constexpr, SCALE: tl.constexpr, RESIDUAL: tl.constexpr,
    DROP_IN: tl.constexpr, IN_STREAM: tl.constexpr, DROP_OUT: tl.constexpr, OUT_STREAM: tl.constexpr,
    UP: tl.constexpr, ROUTED: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of tokens × BN columns of out = M·s·(s·M·act(a)·weight[slot] + bias)∘act'(z) + residual.

    For r too wide to stay in registers. Every factor is optional; the slots are those of the up part with UP, of the
    down part without. Grid (tiles, ceil(N / BN)). a (T, K); weight (slots, K, N), or (slots, N, K) if TRANSPOSED;
    z, residual and out (T, N). Tiles of identity tokens get the residual or zero. Masked: tails of the tile, K and N.
    """
    tile = tl.program_id(0)
    token, valid = tile_tokens(order, tiles, tile, tokens, length, ROUTED, BT)
    if ROUTED:
        count = tl.num_programs(0)
        if tl.load(tiles + count + tile) >= tl.load(tiles + 2 * count + tile):
            return
    task, down_slot, up_slot = tile_slots(tiles, tile, ROUTED)
    slot = up_slot if UP else down_slot
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < N
    dtype = weight.dtype.element_ty
    acc = tl.zeros((BT, BN), tl.float32)
    if task >= 0:
        for start in range(0, K, BK):
            inner = start + tl.arange(0, BK)
            inner_ok = inner < K
            a_block = load_block(a, token, inner, K, valid, inner_ok).to(tl.float32)
            a_block = drop(activate(a_block, ACT), seed, token[:, None], inner[None, :], DROP_IN, IN_STREAM)
            if IN_SCALE == "channel":
                a_block *= tile_scale(scale, task, inner, inner_ok, factor, IN_SCALE, K)
            a_block = a_block.to(dtype)
            if TRANSPOSED:
                w_block = tl.trans(load_block(weight + slot * N * K, column, inner, K, inside, inner_ok))
            else:
                w_block = load_block(weight + slot * N * K, inner, column, N, inner_ok, inside)
            acc = tl.dot(a_block, w_block, acc, input_precision=PRECISION)
        if BIAS:
            acc += tl.load(bias + slot * N + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        acc *= tile_scale(scale, task, column, inside, factor, SCALE, N)
        if BACK_ACT != "identity":
            acc *= derivative(load_block(z, token, column, N, valid, inside).to(tl.float32), BACK_ACT)
        acc = drop(acc, seed, token[:, None], column[None, :], DROP_OUT, OUT_STREAM)
    if RESIDUAL:
        acc += load_block(residual, token, column, N, valid, inside).to(tl.float32)
    store_block(out, token, column, N, valid, inside, acc)
