"""The adapter bottleneck in plain torch: what the kernels are checked against, and the CPU implementation.

Per token, with s the scale, M the dropout mask divided by (1 - p) and LN optional:

    n = LN(x);  z = n W_down + b_down;  h = act(z);  y = residual + M ∘ (s · (h W_up + b_up))

and backward, with g = M ∘ dy:

    dh = (s · g) W_upᵀ          dW_up = Σ hᵀ (s · g)     db_up = Σ s · g     ds = Σ g ∘ (h W_up + b_up)
    dz = dh ∘ act'(z)           dW_down = Σ nᵀ dz        db_down = Σ dz
    dx = LN'(dz W_downᵀ)        dresidual = dy

All sums run over the tokens that use the slot in question. A scale per task is folded into h and b_up, which
are r wide, instead of into dy, which is d wide.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from weft.kernels.bottleneck.activations import activate, activation_backward
from weft.kernels.bottleneck.segments import SegmentedRows
from weft.kernels.bottleneck.tiles import TiledRows
from weft.kernels.dropout import keep_mask

Rows = SegmentedRows | TiledRows
LARGE = 2**20  # elements; tensors of this size leave the caches of a CPU core


@dataclass(frozen=True)
class Weights:
    """The tensors of one call; see `weft.kernels.bottleneck.weights` for shapes. The scale is a table by task."""

    down: Tensor
    up: Tensor
    down_bias: Tensor | None
    up_bias: Tensor | None
    scale: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def contiguous(self) -> Weights:
        """The same tensors in dense memory, as kernels that compute addresses need them."""
        dense: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            dense[field.name] = None if tensor is None else tensor.contiguous()
        return Weights(**dense)


@dataclass(frozen=True)
class Settings:
    """The plain values of one call."""

    scale: float
    norm_eps: float
    dropout: float
    activation: str
    seed: Tensor | None


@dataclass(frozen=True)
class Gradients:
    """Gradients of one call, in the order of the backward op; None where not asked for."""

    x: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    down_bias: Tensor | None = None
    up_bias: Tensor | None = None
    scale: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None


def forward(
    x: Tensor, residual: Tensor | None, weights: Weights, settings: Settings, rows: Rows
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (rows, length, d_out), z (tokens, r) and LN statistics (2, tokens) or empty."""
    tokens = rows.gather(x)
    normed, statistics = normalise(tokens, weights, settings.norm_eps)
    z = rows.project(normed, weights.down, "down", weights.down_bias)
    h = activate(z, settings.activation)
    narrow, wide = _scales(weights.scale, settings.scale, rows, h.dtype)
    delta = _project_up(h, weights, rows, narrow)
    if wide is not None:
        delta *= wide
    if settings.dropout:
        delta *= _multiplier(rows, delta, settings)
    return rows.add_to(residual, delta), z, statistics


def backward(
    dy: Tensor,
    x: Tensor,
    z: Tensor,
    statistics: Tensor,
    weights: Weights,
    settings: Settings,
    rows: Rows,
    add_input: bool,
    needs: list[bool],
) -> Gradients:
    """All gradients asked for in `needs` (order of `Gradients`); `add_input` adds dy to dx."""
    need_x, need_down, need_up, need_down_bias, need_up_bias, need_scale, need_gamma, need_beta = needs
    g = rows.gather(dy.to(x.dtype))
    if settings.dropout:
        g = g * _multiplier(rows, g, settings)
    h = activate(z, settings.activation)
    narrow, wide = _scales(weights.scale, settings.scale, rows, h.dtype)
    dscale = _scale_gradient(g, h, weights, rows) if need_scale and weights.scale is not None else None
    if wide is not None:
        g = g * wide
    dup, dup_bias = _up_gradients(g, h, weights, rows, narrow, need_up, need_up_bias)
    dh = rows.project(g, weights.up.transpose(1, 2), "up")
    dz = activation_backward(dh if narrow is None else dh * narrow, z, settings.activation)
    ddown_bias = rows.sum_by_slot(dz, weights.down.shape[0], "down") if need_down_bias else None
    ddown = None
    if need_down:
        normed, _ = normalise(rows.gather(x), weights, settings.norm_eps)
        ddown = rows.outer(normed, dz, weights.down, "down")
    dx = dgamma = dbeta = None
    if need_x or need_gamma or need_beta:
        dx = rows.project(dz, weights.down.transpose(1, 2), "down")
        if weights.norm_weight is not None:
            dx, dgamma, dbeta = normalise_backward(dx, rows.gather(x), statistics, weights)
        dx = rows.add_to(dy if add_input else None, dx)
    return Gradients(dx, ddown, dup, ddown_bias, dup_bias, dscale, dgamma, dbeta)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def normalise(tokens: Tensor, weights: Weights, eps: float) -> tuple[Tensor, Tensor]:
    """LN of (tokens, d_in), and mean and 1/std (2, tokens); the tokens and (2, 0) without a norm."""
    gamma = weights.norm_weight
    dtype = _accumulator(tokens.dtype)
    if gamma is None:
        return tokens, tokens.new_empty(2, 0, dtype=dtype)
    beta = weights.norm_bias
    normed, mean, rstd = torch.native_layer_norm(
        tokens.to(dtype), [tokens.shape[-1]], gamma.to(dtype), None if beta is None else beta.to(dtype), eps
    )
    return normed.to(tokens.dtype), torch.stack((mean.reshape(-1), rstd.reshape(-1)))


def normalise_backward(
    gradient: Tensor, tokens: Tensor, statistics: Tensor, weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the tokens, of the norm's weight and of its bias."""
    assert weights.norm_weight is not None
    dtype = statistics.dtype
    mean, rstd = statistics[0].unsqueeze(-1), statistics[1].unsqueeze(-1)
    dx, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
        gradient.to(dtype), tokens.to(dtype), [tokens.shape[-1]], mean, rstd,
        weights.norm_weight.to(dtype), torch.zeros_like(weights.norm_weight, dtype=dtype), [True, True, True],
    )  # fmt: skip
    return dx.to(tokens.dtype), dgamma, dbeta


def _scales(
    scale: Tensor | None, factor: float, rows: Rows, dtype: torch.dtype
) -> tuple[Tensor | float | None, Tensor | None]:
    """The scale as a factor of r-wide tensors, or, if it varies over channels, of d-wide ones."""
    if scale is None:
        return (None if factor == 1.0 else factor), None
    per_token = rows.per_token(scale.to(dtype) * factor)
    return (per_token, None) if scale.shape[1] == 1 else (None, per_token)


def _project_up(h: Tensor, weights: Weights, rows: Rows, narrow: Tensor | float | None) -> Tensor:
    if narrow is None:
        return rows.project(h, weights.up, "up", weights.up_bias)
    if weights.up_bias is None:
        return rows.project(h * narrow, weights.up, "up")
    if isinstance(narrow, float):
        return rows.project(h * narrow, weights.up, "up", weights.up_bias * narrow)
    return rows.project(h, weights.up, "up", weights.up_bias).mul_(narrow)


def _up_gradients(
    g: Tensor,
    h: Tensor,
    weights: Weights,
    rows: Rows,
    narrow: Tensor | float | None,
    need_up: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    if not (need_up or need_bias):
        return None, None
    slots, rank = weights.up.shape[:2]
    if need_bias and weights.up.numel() < LARGE:
        # One more column in h makes the bias gradient the last row of the same product: one pass over g less,
        # for a copy of the result, which costs more than that pass where it does not fit into caches.
        widened = torch.cat((h, h.new_ones(h.shape[0], 1)), 1)
        both = rows.outer(widened if narrow is None else widened * narrow, g, weights.up, "up")
        return (both[:, :rank].contiguous() if need_up else None), both[:, rank].contiguous()
    dup = rows.outer(h if narrow is None else h * narrow, g, weights.up, "up") if need_up else None
    if not need_bias:
        return dup, None
    scaled = g * narrow if isinstance(narrow, Tensor) else g
    total = rows.sum_by_slot(scaled, slots, "up")
    return dup, total * narrow if isinstance(narrow, float) else total


def _scale_gradient(g: Tensor, h: Tensor, weights: Weights, rows: Rows) -> Tensor:
    assert weights.scale is not None
    delta = rows.project(h, weights.up, "up", weights.up_bias)
    by_task = rows.sum_by_task(delta.mul_(g), weights.scale.shape[0])
    return by_task if weights.scale.shape[1] > 1 else by_task.sum(1, keepdim=True)


def _multiplier(rows: Rows, like: Tensor, settings: Settings) -> Tensor:
    assert settings.seed is not None
    keep = keep_mask(settings.seed, rows.token_indices(like.device), like.shape[1], settings.dropout)
    return keep.to(like.dtype) / (1.0 - settings.dropout)
