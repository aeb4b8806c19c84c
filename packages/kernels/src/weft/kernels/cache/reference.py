"""Class sums of exponential affinities in plain torch, in blocks: never a queries × keys matrix.

    S_b[q, c] = init[q, c] + alpha · Σ_{j in class c} w_j · exp(beta_b · (q·k_j - 1))

and with G_b = dS_b, P_b[q, j] = exp(beta_b (q·k_j - 1)) and H_b[q, j] = alpha · G_b[q, class(j)]:

    dA[q, j] = Σ_b beta_b · w_j · P_b · H_b       dk_j = Σ_q dA · q       dq = Σ_j dA · k_j
    dbeta_b  = Σ_{q,j} w_j · P_b · (q·k_j - 1) · H_b      dw_j = Σ_b Σ_q P_b · H_b

Blocks have keys as rows, so that summing a class adds rows. Products of half-precision features are taken in
float32, because an error e in q·k becomes a relative error beta · e in the affinity.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from weft.kernels.backends import accumulator
from weft.kernels.cache.layout import labels_of

# Elements of one block of affinities; a few blocks of this size live at a time.
_BLOCK_ELEMENTS = 1 << 20
_QUERIES = 512


def blocks(queries: int, keys: int, shots: int) -> Iterator[tuple[slice, slice]]:
    """(query slice, key slice) pairs; key slices end at class boundaries if every class has `shots` keys."""
    per_query = max(1, min(queries, _QUERIES))
    per_key = max(1, _BLOCK_ELEMENTS // per_query)
    if shots:
        per_key = max(shots, per_key // shots * shots)
    for q in range(0, queries, per_query):
        for k in range(0, keys, per_key):
            yield slice(q, min(q + per_query, queries)), slice(k, min(k + per_key, keys))


def forward(
    queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor, key_weights: Tensor | None,
    init: Tensor | None, alpha: float, shots: int, classes: int,
) -> Tensor:  # fmt: skip
    """Class sums of shape (betas, queries, classes)."""
    dtype = accumulator(queries.dtype)
    labels = labels_of(keys.shape[0], offsets, shots, keys.device)
    sums = queries.new_zeros((betas.numel(), classes, queries.shape[0]), dtype=dtype)
    for q, k in blocks(queries.shape[0], keys.shape[0], shots):
        shifted = _shifted(queries[q], keys[k], dtype)
        for b, beta in enumerate(betas.to(dtype).unbind()):
            # The last use of the block may overwrite it.
            affinity = (shifted.mul_(beta) if b == betas.numel() - 1 else shifted * beta).exp_()
            if key_weights is not None:
                affinity *= key_weights[k].to(dtype).unsqueeze(1)
            _add_classes(sums[b, :, q], affinity, labels[k], k, shots)
    if alpha != 1.0:
        sums *= alpha
    out = sums.transpose(1, 2).contiguous()
    return out if init is None else out.add_(init)


def backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor,
    key_weights: Tensor | None, alpha: float, shots: int, needs: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of queries, keys, betas and key weights, those asked for in `needs`."""
    need_queries, need_keys, need_betas, need_weights = needs
    dtype = accumulator(queries.dtype)
    labels = labels_of(keys.shape[0], offsets, shots, keys.device)
    scaled = gradient.to(dtype).transpose(1, 2) * alpha  # (betas, classes, queries)
    dqueries = queries.new_zeros(queries.shape, dtype=dtype) if need_queries else None
    dkeys = keys.new_zeros(keys.shape, dtype=dtype) if need_keys else None
    dbetas = betas.new_zeros(betas.shape, dtype=dtype) if need_betas else None
    dweights = keys.new_zeros(keys.shape[0], dtype=dtype) if need_weights else None
    for q, k in blocks(queries.shape[0], keys.shape[0], shots):
        shifted = _shifted(queries[q], keys[k], dtype)
        total: Tensor | None = None
        for b, beta in enumerate(betas.to(dtype).unbind()):
            voted = (shifted * beta).exp_()
            voted *= scaled[b, :, q].index_select(0, labels[k])
            if dweights is not None:
                dweights[k] += voted.sum(1)
            if key_weights is not None:
                voted *= key_weights[k].to(dtype).unsqueeze(1)
            if dbetas is not None:
                dbetas[b] += torch.dot(voted.view(-1), shifted.view(-1))
            voted *= beta
            total = voted if total is None else total.add_(voted)
        if total is None:
            continue
        if dkeys is not None:
            dkeys[k].addmm_(total, queries[q].to(dtype))
        if dqueries is not None:
            dqueries[q].addmm_(total.t(), keys[k].to(dtype))
    return dqueries, dkeys, dbetas, dweights


def difference(
    queries: Tensor, keys: Tensor, text_queries: Tensor, text_keys: Tensor, beta: float, text_beta: float
) -> Tensor:
    """Mean over keys of the absolute difference of image and text affinity, shape (queries,)."""
    dtype = accumulator(queries.dtype)
    total = queries.new_zeros(queries.shape[0], dtype=dtype)
    for q, k in blocks(queries.shape[0], keys.shape[0], 0):
        image = _shifted(queries[q], keys[k], dtype).mul_(beta).exp_()
        text = _shifted(text_queries[q], text_keys[k], dtype).mul_(text_beta).exp_()
        total[q] += image.sub_(text).abs_().sum(0)
    return total / max(keys.shape[0], 1)


def _shifted(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """q·k - 1 with keys as rows: (keys, queries)."""
    one = torch.ones((), dtype=dtype, device=keys.device)
    return torch.addmm(one, keys.to(dtype), queries.to(dtype).t(), beta=-1)


def _add_classes(sums: Tensor, affinity: Tensor, labels: Tensor, keys: slice, shots: int) -> None:
    if shots:
        first = keys.start // shots
        grouped = affinity.view(-1, shots, affinity.shape[1])
        sums[first : first + grouped.shape[0]] += grouped.sum(1)
    else:
        sums.index_add_(0, labels, affinity)
