"""Launches of the cache kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from weft.kernels.backends import on_device
from weft.kernels.cache import kernels
from weft.kernels.cache.layout import labels_of
from weft.kernels.plans.choosing import padded, plan_for

# The backward keeps whole feature rows on chip.
MAX_WIDTH = 1024


def forward(
    queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor, key_weights: Tensor | None,
    init: Tensor | None, alpha: float, shots: int, classes: int,
) -> Tensor:  # fmt: skip
    """As `reference.forward`."""
    queries, keys = queries.contiguous(), keys.contiguous()
    key_weights, init = (None if each is None else each.contiguous() for each in (key_weights, init))
    count, width = queries.shape
    out = torch.empty((betas.numel(), count, classes), dtype=torch.float32, device=queries.device)
    if out.numel() == 0:
        return out
    uniform = shots > 0 and shots & (shots - 1) == 0 and shots <= 64
    plan = plan_for("cache_uniform" if uniform else "cache_ragged", queries, 128, count)
    grid = -(-count // plan.block_tokens)
    with on_device(queries):
        if uniform:
            per_program = max(128 // shots, 1)
            kernels.sums_uniform[(grid, -(-classes // per_program))](
                queries, keys, betas, key_weights, init, out, count, classes, betas.numel(), alpha,
                D=width, SHOTS=shots, WEIGHTS=key_weights is not None, INIT=init is not None, BC=per_program,
                **plan.constants(queries, "BQ"),
            )  # fmt: skip
            return out
        if offsets is None:
            offsets = torch.arange(shots, keys.shape[0] + 1, shots, device=keys.device)
        ends = offsets.to(torch.int32).contiguous()
        labels = labels_of(keys.shape[0], ends, 0, keys.device).to(torch.int32)
        kernels.sums_ragged[(grid, -(-classes // 32), betas.numel())](
            queries, keys, labels, ends, betas, key_weights, init, out, count, classes, alpha,
            D=width, WEIGHTS=key_weights is not None, INIT=init is not None, BK=128, BC=32,
            **plan.constants(queries, "BQ"),
        )  # fmt: skip
    return out


def backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor,
    key_weights: Tensor | None, alpha: float, shots: int, needs: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """As `reference.backward`."""
    queries, keys, gradient = queries.contiguous(), keys.contiguous(), gradient.contiguous()
    key_weights = None if key_weights is None else key_weights.contiguous()
    need_queries, need_keys, need_betas, need_weights = needs
    labels = labels_of(keys.shape[0], offsets, shots, keys.device).to(torch.int32)
    common = (labels, gradient, betas, key_weights)
    dqueries = _side(queries, keys, common, alpha, False, (True, False, False))[0] if need_queries else None
    dkeys = dbetas = dweights = None
    if need_keys or need_betas or need_weights:
        asked = (need_keys, need_betas, need_weights)
        dkeys, dbetas, dweights = _side(keys, queries, common, alpha, True, asked)
    return dqueries, dkeys, dbetas, dweights


def _side(
    own: Tensor, other: Tensor, common: tuple[Tensor, Tensor, Tensor, Tensor | None], alpha: float,
    own_keys: bool, needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of one side's features, of betas and of key weights."""
    labels, gradient, betas, key_weights = common
    need_features, need_betas, need_weights = needs
    width = own.shape[1]
    d_own = torch.zeros_like(own) if need_features else None
    grid_betas = padded(betas.numel())
    plan = plan_for("cache_backward", own, width, own.shape[0])
    programs = -(-own.shape[0] // plan.block_tokens)
    beta_partial = torch.zeros((programs, grid_betas), dtype=torch.float32, device=own.device)
    d_weights = torch.zeros(own.shape[0], dtype=torch.float32, device=own.device) if need_weights else None
    if programs and other.shape[0]:
        with on_device(own):
            kernels.sums_backward[(programs,)](
                own, other, labels, gradient, betas, key_weights, d_own, beta_partial, d_weights,
                own.shape[0], other.shape[0], gradient.shape[2], betas.numel(), alpha,
                D=width, OWN_KEYS=own_keys, WEIGHTS=key_weights is not None, NEED_FEATURES=need_features,
                NEED_BETAS=need_betas, NEED_WEIGHTS=need_weights, BD=padded(width), BB=grid_betas,
                **plan.constants(own, "BO", "BT"),
            )  # fmt: skip
    dbetas = beta_partial.sum(0)[: betas.numel()] if need_betas else None
    return d_own, dbetas, d_weights
