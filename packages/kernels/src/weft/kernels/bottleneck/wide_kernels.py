"""Triton kernel of the two-step bottleneck, for r too wide to stay in registers. Only device code."""

# Device pointers and blocks have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from weft.kernels.bottleneck.kernels import tile_scale
from weft.kernels.device_code import activate, derivative, keep_entries, tile_tokens


@triton.jit
def grouped_product(
    a, weight, bias, scale, residual, z, order, tiles, seed, out, tokens, length, factor,
    K: tl.constexpr, N: tl.constexpr, TRANSPOSED: tl.constexpr, ACT: tl.constexpr, BACK_ACT: tl.constexpr,
    BIAS: tl.constexpr, IN_SCALE: tl.constexpr, SCALE: tl.constexpr, RESIDUAL: tl.constexpr,
    IN_DROPOUT: tl.constexpr, OUT_DROPOUT: tl.constexpr, KEPT_SCALE: tl.constexpr, THRESHOLD: tl.constexpr,
    UP: tl.constexpr, ROUTED: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of tokens × BN columns of out = M·s·(act(M·s·a)·weight[slot] + bias)∘act'(z) + residual.

    Every factor is optional. The slots are those of the up part with UP, of the down part without. Grid (tiles,
    ceil(N / BN)). a (T, K); weight (slots, K, N), or (slots, N, K) if TRANSPOSED; z, residual and out (T, N). Tiles
    of identity tokens get the residual or zero. Masked: tails
    of the tile, of K and of N. Accumulator: float32.
    """
    tile = tl.program_id(0)
    token, valid = tile_tokens(order, tiles, tile, tokens, length, ROUTED, BT)
    task = tl.zeros((), tl.int32)
    slot = tl.zeros((), tl.int64)
    if ROUTED:
        count = tl.num_programs(0)
        if tl.load(tiles + count + tile) >= tl.load(tiles + 2 * count + tile):
            return
        task = tl.load(tiles + tile)
        slot = tl.load(tiles + (4 if UP else 3) * count + tile).to(tl.int64)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < N
    both = valid[:, None] & inside[None, :]
    place = token[:, None] * N + column[None, :]
    dtype = weight.dtype.element_ty
    acc = tl.zeros((BT, BN), tl.float32)
    if task >= 0:
        for start in range(0, K, BK):
            inner = start + tl.arange(0, BK)
            inner_ok = inner < K
            a_block = tl.load(
                a + token[:, None] * K + inner[None, :], mask=valid[:, None] & inner_ok[None, :], other=0.0
            ).to(tl.float32)
            if IN_DROPOUT:
                keep = keep_entries(tl.load(seed), token[:, None], inner[None, :], THRESHOLD)
                a_block = tl.where(keep, a_block * KEPT_SCALE, 0.0)
            if IN_SCALE == "channel":
                a_block *= tile_scale(scale, task, inner, inner_ok, factor, IN_SCALE, K)
            a_block = activate(a_block, ACT).to(dtype)
            if TRANSPOSED:
                w_block = tl.trans(
                    tl.load(
                        weight + slot * N * K + column[:, None] * K + inner[None, :],
                        mask=inside[:, None] & inner_ok[None, :], other=0.0,
                    )
                )  # fmt: skip
            else:
                w_block = tl.load(
                    weight + slot * N * K + inner[:, None] * N + column[None, :],
                    mask=inner_ok[:, None] & inside[None, :], other=0.0,
                )  # fmt: skip
            acc = tl.dot(a_block, w_block, acc, input_precision=PRECISION)
        if BIAS:
            acc += tl.load(bias + slot * N + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        acc *= tile_scale(scale, task, column, inside, factor, SCALE, N)
        if BACK_ACT != "identity":
            acc *= derivative(tl.load(z + place, mask=both, other=0.0).to(tl.float32), BACK_ACT)
        if OUT_DROPOUT:
            keep = keep_entries(tl.load(seed), token[:, None], column[None, :], THRESHOLD)
            acc = tl.where(keep, acc * KEPT_SCALE, 0.0)
    if RESIDUAL:
        acc += tl.load(residual + place, mask=both, other=0.0).to(tl.float32)
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=both)
