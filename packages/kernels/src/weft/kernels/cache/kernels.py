"""Triton kernels of the class sums of affinities. Only device code; launches are in `launch`.

Names: Q queries, N keys sorted by class, C classes, D features, NB betas. Features are contiguous (Q, D) and
(N, D); affinities and every accumulator are float32 and live in registers only. exp(x) is taken as exp2(x·log2 e).
"""

# Device pointers and blocks have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from weft.kernels.device_code import load_block, store_block

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _products(left, right, left_index, right_index, left_ok, right_ok, D: tl.constexpr, BD: tl.constexpr,
              PRECISION: tl.constexpr, BL: tl.constexpr, BR: tl.constexpr):  # fmt: skip
    """(BL, BR) products of rows of two (·, D) matrices, in blocks of BD features."""
    acc = tl.zeros((BL, BR), tl.float32)
    for start in range(0, D, BD):
        feature = start + tl.arange(0, BD)
        a = load_block(left, left_index, feature, D, left_ok, feature < D)
        b = load_block(right, right_index, feature, D, right_ok, feature < D)
        acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
    return acc


@triton.jit
def sums_uniform(
    queries, keys, betas, key_weights, init, out, num_queries, classes, num_betas, alpha,
    D: tl.constexpr, SHOTS: tl.constexpr, WEIGHTS: tl.constexpr, INIT: tl.constexpr, PRECISION: tl.constexpr,
    BQ: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Class sums where every class has SHOTS keys, a power of two: a class is SHOTS neighbouring columns.

    Grid (ceil(Q / BQ), ceil(C / BC)). out (NB, Q, C) float32. One product serves all betas. Masked: tails of
    Q, C, D.
    """
    query = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    query_ok = query < num_queries
    key = tl.program_id(1).to(tl.int64) * (BC * SHOTS) + tl.arange(0, BC * SHOTS)
    key_ok = key < classes * SHOTS
    shifted = _products(queries, keys, query, key, query_ok, key_ok, D, BD, PRECISION, BQ, BC * SHOTS) - 1.0
    class_index = tl.program_id(1) * BC + tl.arange(0, BC)
    place = query[:, None] * classes + class_index[None, :]
    both = query_ok[:, None] & (class_index < classes)[None, :]
    plane = num_queries.to(tl.int64) * classes
    for b in range(num_betas):
        beta = tl.load(betas + b).to(tl.float32)
        affinity = tl.exp2(shifted * (beta * _LOG2_E))
        if WEIGHTS:
            affinity *= tl.load(key_weights + key, mask=key_ok, other=0.0).to(tl.float32)[None, :]
        sums = alpha * tl.sum(tl.reshape(affinity, (BQ, BC, SHOTS)), 2)
        if INIT:
            sums += tl.load(init + place, mask=both, other=0.0).to(tl.float32)
        tl.store(out + b * plane + place, sums, mask=both)


@triton.jit
def sums_ragged(
    queries, keys, labels, offsets, betas, key_weights, init, out, num_queries, classes, alpha,
    D: tl.constexpr, WEIGHTS: tl.constexpr, INIT: tl.constexpr, PRECISION: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Class sums for classes of any size: a program owns BC classes and walks their keys.

    Grid (ceil(Q / BQ), ceil(C / BC), NB). Affinities meet their class in a product with a one-hot block; they
    are split into three bfloat16 parts, which together hold all 24 bits, so the sum is as exact as float32.
    """
    query = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    query_ok = query < num_queries
    first = tl.program_id(1) * BC
    class_index = first + tl.arange(0, BC)
    begin = tl.load(offsets + tl.maximum(first - 1, 0))
    begin = tl.where(first == 0, 0, begin)
    end = tl.load(offsets + tl.minimum(first + BC, classes) - 1)
    beta = tl.load(betas + tl.program_id(2)).to(tl.float32)
    sums = tl.zeros((BQ, BC), tl.float32)
    for start in range(begin, end, BK):
        key = start + tl.arange(0, BK)
        key_ok = key < end
        wide = key.to(tl.int64)
        shifted = _products(queries, keys, query, wide, query_ok, key_ok, D, BD, PRECISION, BQ, BK) - 1.0
        affinity = tl.exp2(shifted * (beta * _LOG2_E))
        if WEIGHTS:
            affinity *= tl.load(key_weights + key, mask=key_ok, other=0.0).to(tl.float32)[None, :]
        affinity = tl.where(key_ok[None, :], affinity, 0.0)
        label = tl.load(labels + key, mask=key_ok, other=-1)
        member = (label[:, None] == class_index[None, :]).to(tl.float32).to(tl.bfloat16)
        high = affinity.to(tl.bfloat16)
        rest = affinity - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        sums = tl.dot(low, member, sums)
        sums = tl.dot(middle, member, sums)
        sums = tl.dot(high, member, sums)
    sums *= alpha
    place = query[:, None] * classes + class_index[None, :]
    both = query_ok[:, None] & (class_index < classes)[None, :]
    if INIT:
        sums += tl.load(init + place, mask=both, other=0.0).to(tl.float32)
    plane = num_queries.to(tl.int64) * classes
    tl.store(out + tl.program_id(2) * plane + place, sums, mask=both)


@triton.jit
def sums_backward(
    own, other, labels, gradient, betas, key_weights, d_own, beta_partial, d_weights, own_count, other_count,
    classes, num_betas, alpha,
    D: tl.constexpr, OWN_KEYS: tl.constexpr, WEIGHTS: tl.constexpr, NEED_FEATURES: tl.constexpr,
    NEED_BETAS: tl.constexpr, NEED_WEIGHTS: tl.constexpr, PRECISION: tl.constexpr,
    BO: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    """Gradients with respect to one side: a program owns BO keys (or queries) and walks the other side.

    Grid (ceil(own / BO),). gradient (NB, Q, C); d_own (own, D); with OWN_KEYS also beta_partial (programs,
    BB) and d_weights (N,). BD is D padded to a power of two: the owned rows stay on chip, affinities are
    recomputed, and nothing of size Q × N is written. Every sum runs in a fixed order. Masked: tails of
    both sides and of D.
    """
    row = tl.program_id(0).to(tl.int64) * BO + tl.arange(0, BO)
    row_ok = row < own_count
    feature = tl.arange(0, BD)
    inside = feature < D
    mine = load_block(own, row, feature, D, row_ok, inside)
    acc = tl.zeros((BO, BD), tl.float32)
    beta_sums = tl.zeros((BB,), tl.float32)
    weight_sums = tl.zeros((BO,), tl.float32)
    queries = tl.where(OWN_KEYS, other_count, own_count).to(tl.int64)
    for start in range(0, other_count, BT):
        column = start + tl.arange(0, BT).to(tl.int64)
        column_ok = column < other_count
        both = row_ok[:, None] & column_ok[None, :]
        theirs = load_block(other, column, feature, D, column_ok, inside)
        shifted = tl.dot(mine, tl.trans(theirs), input_precision=PRECISION) - 1.0
        if OWN_KEYS:
            label = tl.load(labels + row, mask=row_ok, other=0).to(tl.int64)
            place = column[None, :] * classes + label[:, None]
        else:
            label = tl.load(labels + column, mask=column_ok, other=0).to(tl.int64)
            place = row[:, None] * classes + label[None, :]
        total = tl.zeros((BO, BT), tl.float32)
        for b in range(num_betas):
            beta = tl.load(betas + b).to(tl.float32)
            voted = tl.load(gradient + b * queries * classes + place, mask=both, other=0.0).to(tl.float32)
            voted = tl.where(both, voted * alpha * tl.exp2(shifted * (beta * _LOG2_E)), 0.0)
            if NEED_WEIGHTS:
                weight_sums += tl.sum(voted, 1)
            if WEIGHTS:
                if OWN_KEYS:
                    voted *= tl.load(key_weights + row, mask=row_ok, other=0.0).to(tl.float32)[:, None]
                else:
                    voted *= tl.load(key_weights + column, mask=column_ok, other=0.0).to(tl.float32)[None, :]
            if NEED_BETAS:
                beta_sums += tl.where(tl.arange(0, BB) == b, tl.sum(voted * shifted), 0.0)
            total += beta * voted
        if NEED_FEATURES:
            acc = tl.dot(total.to(theirs.dtype), theirs, acc, input_precision=PRECISION)
    if NEED_FEATURES:
        store_block(d_own, row, feature, D, row_ok, inside, acc)
    if NEED_BETAS:
        tl.store(beta_partial + tl.program_id(0) * BB + tl.arange(0, BB), beta_sums)
    if NEED_WEIGHTS:
        tl.store(d_weights + row, weight_sums, mask=row_ok)
