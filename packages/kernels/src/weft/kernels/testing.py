"""Helpers for tests of kernels: one tolerance table, relative errors, and naive double-precision oracles.

`call_bottleneck` spells a case out as keywords. The oracles share no code with the package: they loop over rows,
materialise Kronecker products with `torch.kron` and build full affinity matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weft.kernels import BottleneckWeights, adapter_bottleneck, route_offsets, route_rows

# Largest accepted ‖got - want‖ / ‖want‖ against float64, by the dtype of the inputs.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 3e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.5e-2,
}
_WEIGHTS = tuple(field.name for field in fields(BottleneckWeights))


def relative_error(got: Tensor, want: Tensor) -> float:
    """‖got - want‖ / ‖want‖ in float64; NaN counts as infinite."""
    difference = got.detach().double().cpu() - want.detach().double().cpu()
    error = difference.norm() / want.detach().double().cpu().norm().clamp(min=1e-30)
    return float("inf") if bool(error.isnan()) else float(error)


def assert_all_close(got: Sequence[Tensor], want: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Compare pairwise with the tolerance of `dtype`; what should be zero must be exactly zero."""
    for position, (one, other) in enumerate(zip(got, want, strict=True)):
        assert one.shape == other.shape, (position, one.shape, other.shape)
        if not other.any():
            assert not one.any(), f"tensor {position} should be zero"
            continue
        error = relative_error(one, other)
        assert error <= TOLERANCE[dtype], f"tensor {position}: relative error {error:.2e}"


def activation(name: str, z: Tensor) -> Tensor:
    """The activations by their usual torch functions."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": functional.relu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda v: functional.gelu(v, approximate="tanh"),
        "silu": functional.silu,
        "identity": lambda v: v,
    }
    return functions[name](z)


def call_bottleneck(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    *,
    task_ids: Tensor | None = None,
    offsets: Tensor | None = None,
    tasks: int | None = None,
    **options: Any,
) -> Tensor:
    """`adapter_bottleneck` with all that a case varies as keywords, fields of `BottleneckWeights` among them.

    `task_ids` are sorted by `route_rows`, `offsets` taken by `route_offsets` instead; `tasks` is by default what the
    weights tell.
    """
    weights = BottleneckWeights(down, up, **{name: options.pop(name) for name in _WEIGHTS if name in options})
    if tasks is None:
        tables = [table.shape[0] for table in weights.tables.values() if table is not None]
        tasks = tables[0] if tables else max(down.shape[0], up.shape[0])
    routing = None
    if task_ids is not None:
        routing = route_rows(task_ids, tasks)
    elif offsets is not None:
        routing = route_offsets(offsets, x.shape[0])
    return adapter_bottleneck(x, weights, routing, **options)


def naive_bottleneck(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    task_ids: Sequence[int],
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    down_slots: Sequence[int] | None = None,
    up_slots: Sequence[int] | None = None,
    residual: Tensor | None = None,
    scale: Tensor | float = 1.0,
    act: str = "gelu_tanh",
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    norm_eps: float = 1e-5,
) -> Tensor:
    """One row after the other, one task each; arguments as in `adapter_bottleneck`."""
    rows = []
    for index, task in enumerate(task_ids):
        base = x.new_zeros(*x.shape[1:-1], up.shape[2]) if residual is None else residual[index]
        if task < 0:
            rows.append(base)
            continue
        d = down_slots[task] if down_slots is not None else min(task, down.shape[0] - 1)
        u = up_slots[task] if up_slots is not None else min(task, up.shape[0] - 1)
        h = x[index]
        if norm_weight is not None:
            h = functional.layer_norm(h, (x.shape[-1],), norm_weight, norm_bias, norm_eps)
        h = h @ down[d]
        h = activation(act, h if down_bias is None else h + down_bias[d])
        delta = h @ up[u]
        delta = delta if up_bias is None else delta + up_bias[u]
        if isinstance(scale, Tensor):
            delta = delta * (scale[task] if scale.shape[0] > 1 else scale[0])
        else:
            delta = delta * scale
        rows.append(base + delta)
    return torch.stack(rows) if rows else x.new_zeros(*x.shape[:-1], up.shape[2])


def naive_phm(rule: Tensor, weight: Tensor) -> Tensor:
    """Sum of `torch.kron` over the terms."""
    return reduce(torch.add, (torch.kron(a, b) for a, b in zip(rule, weight, strict=True)))


def naive_cache(
    queries: Tensor,
    keys: Tensor,
    labels: Tensor,
    classes: int,
    beta: Tensor | float,
    key_weights: Tensor | None = None,
) -> Tensor:
    """Full affinity matrix times one-hot values."""
    affinity = (-beta * (1 - queries @ keys.T)).exp()
    if key_weights is not None:
        affinity = affinity * key_weights
    return affinity @ functional.one_hot(labels, classes).to(affinity.dtype)
