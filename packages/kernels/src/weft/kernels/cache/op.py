"""Registration of ``weft::cache_class_sums`` and its backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import accumulator, use_triton
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
    return _implementation(call.queries, call.backend).forward(*call[:-1])


def _forward_fake(*arguments: Any) -> Tensor:
    call = _Call(*arguments)
    shape = (call.betas.shape[0], call.queries.shape[0], call.classes)
    return call.queries.new_empty(shape, dtype=accumulator(call.queries.dtype))


def _backward(gradient: Tensor, needs: list[bool], *arguments: Any) -> tuple[Tensor | None, ...]:
    *tensors, _, alpha, shots, _, backend = arguments
    return _implementation(tensors[0], backend).backward(gradient, *tensors, alpha, shots, needs)


def _flops(queries: Any, keys: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    return 2 * queries[0] * queries[1] * keys[0]


registration.Pair(
    name="cache_class_sums",
    arguments="Tensor queries, Tensor keys, Tensor? offsets, Tensor betas, Tensor? key_weights, Tensor? init, "
    "float alpha, int shots, int classes, str backend",
    gradients=("queries", "keys", "betas", "key_weights"),
    forward=_forward,
    fake=_forward_fake,
    backward=_backward,
    flops=_flops,
    backward_cost=3,
    casts=False,  # affinities are exponentials of cosines: like softmax they keep their precision
    added="init",
).define()
