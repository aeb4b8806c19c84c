"""Registration of ``weft::cache_class_sums`` and its backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton
from weft.kernels.cache import reference
from weft.kernels.checks import check_ends
from weft.kernels.errors import KernelBackendError


class _Call(NamedTuple):
    """The arguments of the op, in the order of its schema; `shots` is 0 where classes have `offsets`."""

    queries: Tensor
    keys: Tensor
    offsets: Tensor | None
    betas: Tensor
    key_weights: Tensor | None
    init: Tensor | None
    alpha: float
    shots: int
    classes: int
    backend: str


_GRADIENTS = ("queries", "keys", "betas", "key_weights")
_INPUTS = tuple(_Call._fields.index(name) for name in _GRADIENTS)
_INIT = _Call._fields.index("init")


def _implementation(queries: Tensor, backend: str) -> Any:
    """The module that computes."""
    if not use_triton(queries, backend):
        return reference
    from weft.kernels.cache import launch

    if queries.shape[1] <= launch.MAX_WIDTH:
        return launch
    if backend == "triton":
        raise KernelBackendError(
            f"`backend` 'triton' must get features of at most {launch.MAX_WIDTH} columns, but got "
            f"{queries.shape[1]}. Use backend='auto'."
        )
    return reference


def _forward(*arguments: Any) -> Tensor:
    call = _Call(*arguments)
    if call.offsets is not None and call.offsets.device.type == "cpu":
        check_ends(call.offsets, call.keys.shape[0], "keys", "class")
    sums: Tensor = _implementation(call.queries, call.backend).forward(*call[:-1])
    return sums


def _forward_fake(*arguments: Any) -> Tensor:
    call = _Call(*arguments)
    shape = (call.betas.shape[0], call.queries.shape[0], call.classes)
    return call.queries.new_empty(shape, dtype=reference.accumulator(call.queries.dtype))


def _backward(gradient: Tensor, needs: list[bool], *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, alpha, shots, _, backend = arguments
    found = _implementation(tensors[0], backend).backward(gradient, *tensors, alpha, shots, needs)
    return registration.gradients(found, [arguments[position] for position in _INPUTS])


def _backward_fake(gradient: Tensor, needs: list[bool], *arguments: Any) -> tuple[Tensor, ...]:
    return registration.fake_gradients(needs, [arguments[position] for position in _INPUTS])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    init = inputs[_INIT]
    ctx.save_for_backward(*inputs[:_INIT])
    ctx.init_dtype = None if init is None else init.dtype
    ctx.values = inputs[_INIT + 1 :]


def _autograd(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    needs = [bool(ctx.needs_input_grad[position]) for position in _INPUTS]
    gradients: list[Any] = [None] * len(_Call._fields)
    if any(needs):
        found = torch.ops.weft.cache_class_sums_backward(gradient, needs, *ctx.saved_tensors, *ctx.values)
        for position, need, own in zip(_INPUTS, needs, found, strict=True):
            gradients[position] = own if need else None
    if ctx.needs_input_grad[_INIT]:
        gradients[_INIT] = gradient.sum(0).to(ctx.init_dtype)
    return tuple(gradients)


def _cast(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Affinities are exponentials of cosines: like softmax they keep the precision they are given."""
    return arguments


def _flops(queries: Any, keys: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * queries[0] * queries[1] * keys[0]


def _backward_flops(gradient: Any, needs: Any, queries: Any, keys: Any, *others: Any, **named: Any) -> int:
    return 3 * _flops(queries, keys)


_TENSORS = "Tensor queries, Tensor keys, Tensor? offsets, Tensor betas, Tensor? key_weights"
_VALUES = "float alpha, int shots, int classes, str backend"

registration.define_pair(
    "cache_class_sums", f"({_TENSORS}, Tensor? init, {_VALUES}) -> Tensor", _forward, _forward_fake,
    f"(Tensor gradient, bool[] needs, {_TENSORS}, {_VALUES}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward, _backward_fake, autograd=_autograd, setup_context=_setup_context, cast=_cast, flops=_flops,
    backward_flops=_backward_flops,
)  # fmt: skip
