"""Small Triton functions that several kernels share. Imported only where Triton is installed."""

# Device pointers and blocks have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(z, ACT: tl.constexpr):
    """``act(z)`` in float32; ACT is a name of `weft.kernels.bottleneck.activations.ACTIVATIONS`."""
    if ACT == "relu":
        return tl.maximum(z, 0.0)
    if ACT == "gelu":
        return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    if ACT == "gelu_tanh":
        inner = 0.7978845608028654 * (z + 0.044715 * z * z * z)
        return z * tl.sigmoid(2.0 * inner)
    if ACT == "silu":
        return z * tl.sigmoid(z)
    return z


@triton.jit
def derivative(z, ACT: tl.constexpr):
    """``act'(z)`` in float32."""
    if ACT == "relu":
        return tl.where(z > 0.0, 1.0, 0.0)
    if ACT == "gelu":
        cdf = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))
        return cdf + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    if ACT == "gelu_tanh":
        inner = 0.7978845608028654 * (z + 0.044715 * z * z * z)
        gate = tl.sigmoid(2.0 * inner)
        return gate + z * gate * (1.0 - gate) * 2.0 * 0.7978845608028654 * (1.0 + 0.134145 * z * z)
    if ACT == "silu":
        gate = tl.sigmoid(z)
        return gate * (1.0 + z * (1.0 - gate))
    return tl.full(z.shape, 1.0, tl.float32)


@triton.jit
def mix_bits(v):
    """The hash of `weft.kernels.dropout` on uint32."""
    v = v ^ (v >> 16)
    v = v * 0x7FEB352D
    v = v ^ (v >> 15)
    v = v * 0x846CA68B
    return v ^ (v >> 16)


@triton.jit
def keep_entries(seed, rows, columns, threshold):
    """Dropout decision for int64 `rows` (M, 1) and int32 `columns` (1, N); see `weft.kernels.dropout`."""
    key = mix_bits(seed.to(tl.uint32) ^ mix_bits((seed >> 32).to(tl.uint32)))
    key = mix_bits(rows.to(tl.uint32) ^ mix_bits((rows >> 32).to(tl.uint32) ^ key))
    draw = mix_bits((columns.to(tl.uint32) * 0x9E3779B9) ^ key)
    return (draw >> 8).to(tl.int32) >= threshold


@triton.jit
def drop(values, seed, rows, columns, THRESHOLD: tl.constexpr, STREAM: tl.constexpr):
    """Float32 `values` with what dropout takes set to zero and the rest scaled; untouched where THRESHOLD is 0."""
    if THRESHOLD > 0:
        keep = keep_entries(tl.load(seed) ^ STREAM, rows, columns, THRESHOLD)
        values = tl.where(keep, values * (16777216.0 / (16777216 - THRESHOLD)), 0.0)
    return values


@triton.jit
def load_block(matrix, rows, columns, WIDTH: tl.constexpr, rows_ok, columns_ok):
    """A block of a row-major matrix with WIDTH columns; masked entries are zero."""
    place = matrix + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(place, mask=rows_ok[:, None] & columns_ok[None, :], other=0.0)


@triton.jit
def store_block(matrix, rows, columns, WIDTH: tl.constexpr, rows_ok, columns_ok, values):
    """Write a block in the dtype of the matrix; see `load_block`."""
    place = matrix + rows[:, None] * WIDTH + columns[None, :]
    tl.store(place, values.to(matrix.dtype.element_ty), mask=rows_ok[:, None] & columns_ok[None, :])


@triton.jit
def tile_tokens(order, tiles, tile, tokens, length, ROUTED: tl.constexpr, BT: tl.constexpr):
    """Token indices (int64) and validity of one tile; without routing tile i is tokens [i·BT, (i+1)·BT).

    `tiles` holds the first position of each tile in its second row, and the one after its last in its third; the
    grid's first axis has a program per tile.
    """
    if ROUTED:
        count = tl.num_programs(0)
        position = tl.load(tiles + count + tile) + tl.arange(0, BT)
        valid = position < tl.load(tiles + 2 * count + tile)
        row = tl.load(order + position // length, mask=valid, other=0).to(tl.int64)
        token = row * length + position % length
    else:
        position = tile * BT + tl.arange(0, BT)
        valid = position < tokens
        token = position.to(tl.int64)
    return token, valid


@triton.jit
def tile_slots(tiles, tile, ROUTED: tl.constexpr):
    """Task, down slot and up slot of one tile; all zero without routing."""
    task = tl.zeros((), tl.int32)
    down_slot = tl.zeros((), tl.int64)
    up_slot = tl.zeros((), tl.int64)
    if ROUTED:
        count = tl.num_programs(0)
        task = tl.load(tiles + tile)
        down_slot = tl.load(tiles + 3 * count + tile).to(tl.int64)
        up_slot = tl.load(tiles + 4 * count + tile).to(tl.int64)
    return task, down_slot, up_slot
