"""The two-step bottleneck: z by one grouped product, y by another; the plan for wide bottlenecks.

The LayerNorm is a library call here, since both products are bound by arithmetic and not by traffic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels.backends import dot_precision
from weft.kernels.bottleneck import wide_kernels
from weft.kernels.bottleneck.launch import (
    Route,
    Tiles,
    kept_scale,
    outer_by_task,
    plan_tile,
    scale_kind,
    scale_table,
    slot_of_task,
    sum_by_slot,
    tiles_of,
    up_gradients,
)
from weft.kernels.bottleneck.reference import Gradients, Settings, Weights, normalise, normalise_backward
from weft.kernels.device import on_device
from weft.kernels.dropout import keep_threshold

_COLUMNS = 128


def _product(
    a: Tensor, weight: Tensor, out: Tensor, route: Route, tiles: Tiles, up: bool, settings: Settings,
    block: tuple[int, int, int, int], **flags: Any,
) -> Tensor:  # fmt: skip
    """Launch `grouped_product` with the optional factors named in `flags`; returns `out`."""
    width, block_tokens, warps, stages = block
    inner, columns = a.shape[1], out.shape[1]
    tensors = {name: flags.get(name) for name in ("bias", "scale", "residual", "z")}
    scaled_in = flags.get("in_scale", False)
    kind = scale_kind(tensors["scale"])
    with on_device(a):
        wide_kernels.grouped_product[(tiles.count, -(-columns // _COLUMNS))](
            a, weight, tensors["bias"], tensors["scale"], tensors["residual"], tensors["z"], tiles.order, tiles.table,
            settings.seed, out, route.tokens, route.length, flags.get("factor", 1.0), K=inner, N=columns, UP=up,
            KEPT_SCALE=kept_scale(settings), THRESHOLD=keep_threshold(settings.dropout),
            TRANSPOSED=flags.get("transposed", False), ACT=flags.get("act", "identity"),
            BACK_ACT=flags.get("back_act", "identity"), BIAS=tensors["bias"] is not None,
            IN_SCALE=kind if scaled_in else "none", SCALE="none" if scaled_in else kind,
            RESIDUAL=tensors["residual"] is not None, IN_DROPOUT=flags.get("in_dropout", False),
            OUT_DROPOUT=flags.get("out_dropout", False), ROUTED=route.routed,
            PRECISION=dot_precision(a.dtype), BT=block_tokens, BN=_COLUMNS, BK=width,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return out


def _block(x: Tensor, tokens: int) -> tuple[int, int, int, int]:
    tile = plan_tile("grouped_product", x, _COLUMNS, tokens)
    return tile.block_width, tile.block_tokens, tile.num_warps, tile.num_stages


def forward(
    x: Tensor, residual: Tensor | None, weights: Weights, settings: Settings, route: Route
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (rows, length, d_out), z (tokens, r) and LN statistics (2, tokens) or (2, 0)."""
    tokens, d_out = route.tokens, weights.up.shape[2]
    normed, statistics = normalise(x.view(tokens, -1), weights, settings.norm_eps)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    z = x.new_empty((tokens, weights.down.shape[2]))
    y = x.new_empty((tokens, d_out), dtype=dtype)
    if tokens:
        block = _block(x, tokens)
        tiles = tiles_of(route, weights, block[1])
        _product(normed, weights.down, z, route, tiles, False, settings, block, bias=weights.down_bias)
        _product(
            z, weights.up, y, route, tiles, True, settings, block, bias=weights.up_bias,
            scale=scale_table(weights.scale, route.tasks), factor=settings.scale, act=settings.activation,
            residual=None if residual is None else residual.view(tokens, d_out), out_dropout=settings.dropout > 0,
        )  # fmt: skip
    return y.view(route.rows, route.length, d_out), z, statistics


def backward(
    dy: Tensor,
    x: Tensor,
    z: Tensor,
    statistics: Tensor,
    weights: Weights,
    settings: Settings,
    route: Route,
    add_input: bool,
) -> Gradients:
    """All gradients."""
    tokens = route.tokens
    flat, incoming = x.view(tokens, -1), dy.contiguous().view(tokens, -1)
    dz, du = torch.empty_like(z), torch.empty_like(flat)
    norm = weights.norm_weight is not None
    if tokens:
        block = _block(x, tokens)
        tiles = tiles_of(route, weights, block[1])
        _product(
            incoming, weights.up, dz, route, tiles, True, settings, block, transposed=True, z=z,
            scale=scale_table(weights.scale, route.tasks), factor=settings.scale,
            in_scale=scale_kind(weights.scale) == "channel", back_act=settings.activation,
            in_dropout=settings.dropout > 0,
        )  # fmt: skip
        _product(
            dz, weights.down, du, route, tiles, False, settings, block, transposed=True,
            residual=incoming if add_input and not norm else None,
        )  # fmt: skip
    found = up_gradients(incoming, z, weights, settings, route)
    normed, _ = normalise(flat, weights, settings.norm_eps)
    by_task, _, bias_by_task = outer_by_task(normed, dz, route, narrow_sum=True)
    slot = slot_of_task(route, weights.down.shape[0], route.down_slots, x.device)
    found["down"] = sum_by_slot(by_task, slot, weights.down.shape[0])
    found["down_bias"] = sum_by_slot(bias_by_task, slot, weights.down.shape[0])
    if norm:
        du, found["norm_weight"], found["norm_bias"] = normalise_backward(du, flat, statistics, weights)
        du = du + incoming if add_input else du
    return Gradients(du.view_as(x), **found)
