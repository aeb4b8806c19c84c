"""What the operations are compared with: the same maths as people write it without them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def eager(x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor, up_bias: Tensor) -> Tensor:
    """One adapter as plain modules would compute it."""
    h = functional.gelu(functional.linear(x, down.t(), down_bias), approximate="tanh")
    return x + functional.linear(h, up.t(), up_bias)


def eager_norm_dropout(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor, up_bias: Tensor, gamma: Tensor, beta: Tensor
) -> Tensor:
    """The same with a LayerNorm before and dropout behind it."""
    n = functional.layer_norm(x, (x.shape[-1],), gamma, beta)
    h = functional.gelu(functional.linear(n, down.t(), down_bias), approximate="tanh")
    return x + functional.dropout(functional.linear(h, up.t(), up_bias), 0.1)


def loop(x: Tensor, ids: Tensor, down: Tensor, up: Tensor, down_bias: Tensor, up_bias: Tensor) -> Tensor:
    """A Python loop over the tasks of a mixed batch."""
    out = torch.zeros_like(x)
    for task in range(down.shape[0]):
        rows = (ids == task).nonzero().squeeze(1)
        if rows.numel():
            out = out.index_copy(
                0, rows, eager(x[rows], down[task], up[task], down_bias[task], up_bias[task])
            )
    return out


def sorted_grouped(
    x: Tensor, ids: Tensor, down: Tensor, up: Tensor, down_bias: Tensor, up_bias: Tensor
) -> Tensor:
    """Rows sorted by task and torch's grouped matrix product."""
    order = torch.argsort(ids, stable=True)
    ends = torch.bincount(ids, minlength=down.shape[0]).cumsum(0).mul(x.shape[1]).to(torch.int32)
    task = ids[order].repeat_interleave(x.shape[1])
    tokens = x[order].reshape(-1, x.shape[-1])
    grouped = functional.grouped_mm
    h = functional.gelu(grouped(tokens, down, offs=ends) + down_bias[task], approximate="tanh")
    y = tokens + grouped(h, up, offs=ends) + up_bias[task]
    return torch.empty_like(x).index_copy(0, order, y.view_as(x))


def phm_matrix(rule: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Sum of Kronecker products through one matrix per term, as published layers build it."""
    terms, a, b = rule.shape
    inner = left @ right
    products = rule[:, :, None, :, None] * inner[:, None, :, None, :]
    return products.reshape(terms, a * inner.shape[1], b * inner.shape[2]).sum(0)


def cache_eager(
    queries: Tensor, keys: Tensor, values: Tensor, init: Tensor, alpha: float, beta: float
) -> Tensor:
    """The full affinity matrix times one-hot values."""
    return init + alpha * (-beta * (1 - queries @ keys.t())).exp() @ values
