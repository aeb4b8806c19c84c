"""Registration of ``weft::cache_class_sums`` and its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.cache import reference
from weft.kernels.cache.layout import check_offsets
from weft.kernels.errors import KernelBackendError

_TENSORS = "Tensor queries, Tensor keys, Tensor? offsets, Tensor betas, Tensor? key_weights"
_VALUES = "float alpha, int shots, int classes, str backend"


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _kernels_serve(queries: Tensor, backend: str) -> bool:
    """Whether the fused kernels run this call."""
    if not use_triton(queries, backend):
        return False
    from weft.kernels.cache.launch import MAX_WIDTH

    if queries.shape[1] <= MAX_WIDTH:
        return True
    if backend == "triton":
        raise KernelBackendError(
            f"`backend` 'triton' must get features of at most {MAX_WIDTH} columns, but got "
            f"{queries.shape[1]}. Use backend='auto'."
        )
    return False


def _forward(
    queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor, key_weights: Tensor | None,
    init: Tensor | None, alpha: float, shots: int, classes: int, backend: str,
) -> Tensor:  # fmt: skip
    if offsets is not None and offsets.device.type == "cpu":
        check_offsets(offsets, keys.shape[0])
    if _kernels_serve(queries, backend):
        from weft.kernels.cache import launch

        weights, start = _dense(key_weights), _dense(init)
        return launch.forward(
            queries.contiguous(), keys.contiguous(), offsets, betas, weights, start, alpha, shots, classes
        )
    return reference.forward(queries, keys, offsets, betas, key_weights, init, alpha, shots, classes)


def _forward_fake(
    queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor, key_weights: Tensor | None,
    init: Tensor | None, alpha: float, shots: int, classes: int, backend: str,
) -> Tensor:  # fmt: skip
    shape = (betas.shape[0], queries.shape[0], classes)
    return queries.new_empty(shape, dtype=reference.accumulator(queries.dtype))


def _backward(
    gradient: Tensor, needs: list[bool], queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor,
    key_weights: Tensor | None, alpha: float, shots: int, classes: int, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    if _kernels_serve(queries, backend):
        from weft.kernels.cache import launch

        found = launch.backward(
            gradient.contiguous(), queries.contiguous(), keys.contiguous(), offsets, betas,
            _dense(key_weights), alpha, shots, needs,
        )  # fmt: skip
    else:
        found = reference.backward(gradient, queries, keys, offsets, betas, key_weights, alpha, shots, needs)
    return tuple(
        queries.new_empty(0) if got is None or like is None else got.to(like.dtype)
        for got, like in zip(found, (queries, keys, betas, key_weights), strict=True)
    )


def _backward_fake(
    gradient: Tensor, needs: list[bool], queries: Tensor, keys: Tensor, offsets: Tensor | None, betas: Tensor,
    key_weights: Tensor | None, alpha: float, shots: int, classes: int, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(
        like.new_empty(like.shape) if need and like is not None else queries.new_empty(0)
        for need, like in zip(needs, (queries, keys, betas, key_weights), strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, keys, offsets, betas, key_weights, init, *values = inputs
    ctx.save_for_backward(queries, keys, offsets, betas, key_weights)
    ctx.init_dtype = None if init is None else init.dtype
    ctx.values = values


def _autograd(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    queries, keys, betas, weights, init = (ctx.needs_input_grad[i] for i in (0, 1, 3, 4, 5))
    needs = [bool(queries), bool(keys), bool(betas), bool(weights)]
    dqueries = dkeys = dbetas = dweights = None
    if any(needs):
        found = torch.ops.weft.cache_class_sums_backward(gradient, needs, *ctx.saved_tensors, *ctx.values)
        dqueries, dkeys, dbetas, dweights = (
            g if need else None for g, need in zip(found, needs, strict=True)
        )
    dinit = gradient.sum(0).to(ctx.init_dtype) if init else None
    return dqueries, dkeys, None, dbetas, dweights, dinit, None, None, None, None


def _flops(queries: Any, keys: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * queries[0] * queries[1] * keys[0]


def _backward_flops(gradient: Any, needs: Any, queries: Any, keys: Any, *others: Any, **named: Any) -> int:
    return 3 * _flops(queries, keys)


registration.define(
    "cache_class_sums", f"({_TENSORS}, Tensor? init, {_VALUES}) -> Tensor", _forward, _forward_fake
)
registration.define(
    "cache_class_sums_backward",
    f"(Tensor gradient, bool[] needs, {_TENSORS}, {_VALUES}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
registration.differentiate("cache_class_sums", _autograd, _setup_context)
registration.forbid_double_backward("cache_class_sums_backward")
# Affinities are exponentials of cosines: like softmax they keep the precision they are given.
registration.autocast("cache_class_sums", lambda dtype, arguments: arguments)
registration.count_flops("cache_class_sums", _flops)
registration.count_flops("cache_class_sums_backward", _backward_flops)
