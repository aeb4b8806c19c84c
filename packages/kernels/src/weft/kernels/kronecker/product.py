"""Sums of Kronecker products as matrices: ``weft::kronecker_sum``, `kron` and `phm_weight`.

For A of shape (terms, a, b) and B of shape (terms, c, d)

    W[p·c + u, q·d + v] = Σ_i A_i[p, q] · B_i[u, v]

With A flattened to (terms, ab) and B to (terms, cd) this is one matrix product Aᵀ B followed by a
transposition, so no intermediate with a `terms` axis of the size of W exists. Its gradients are products of
the same kind: dA = B · dW'ᵀ and dB = A · dW', where dW' is dW in the order (p, q, u, v).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import check_backend, use_triton
from weft.kernels.checks import check_floating, check_tensors
from weft.kernels.errors import KernelShapeError, KernelTypeError, KernelValueError


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product of matrices, ``kron(a, b)[p·m + u, q·n + v] = a[p, q] · b[u, v]``.

    Args:
        a: shape (..., p, q).
        b: shape (..., m, n); leading dimensions broadcast against those of `a`.

    Returns:
        Shape (..., p·m, q·n), differentiable once in both arguments.

    Raises:
        KernelShapeError: an argument has fewer than two dimensions, or leading dimensions do not broadcast.
        KernelTypeError: an argument is not a floating-point tensor.

    Example:
        >>> kron(torch.eye(2), torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2., 0., 0.],
                [0., 0., 1., 2.]])
    """
    _check_pair("a", a, "b", b, 2)
    return _sum(a.unsqueeze(-3), b.unsqueeze(-3))


def phm_weight(
    rule: Tensor,
    weight: Tensor | None = None,
    *,
    left: Tensor | None = None,
    right: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The matrix of a parametrised hypercomplex multiplication, ``W = Σ_i rule_i ⊗ B_i``.

    Args:
        rule: shape (..., terms, p, q); for a PHM layer terms = p = q = n.
        weight: full B, shape (..., terms, d_in / p, d_out / q).
        left: low-rank B instead of `weight`, B_i = left_i · right_i, shape (..., terms, d_in / p, rank).
        right: shape (..., terms, rank, d_out / q).
        backend: ``auto``, ``triton`` or ``torch``.

    Leading dimensions (slots) broadcast, so one rule can serve many slots.

    Returns:
        Shape (..., d_in, d_out), for ``x @ W``.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: an argument is not a floating-point tensor.
        KernelValueError: not exactly one of `weight` and (`left`, `right`) is given.

    Source: Zhang et al. 2021 (PHM), eq. 3; Mahabadi et al. 2021 (Compacter), eq. 6 for the low-rank form.

    Example:
        >>> phm_weight(torch.ones(1, 2, 2), torch.ones(1, 3, 2)).shape
        torch.Size([6, 4])
    """
    if weight is None:
        if left is None or right is None:
            raise KernelValueError(
                "`left` and `right` must both be given where `weight` is not, but at least one is None. "
                "Give the full weight or both factors."
            )
        _check_pair("left", left, "right", right, 3)
        if left.shape[-1] != right.shape[-2]:
            raise KernelShapeError(
                f"`right` must have the rank of `left` ({left.shape[-1]}) in dimension -2, but has "
                f"{right.shape[-2]}. Check which factors belong together."
            )
        weight = left @ right
    elif left is not None or right is not None:
        raise KernelValueError(
            "`weight` must not be given together with `left` or `right`, but is. Choose the full or the "
            "low-rank form."
        )
    _check_pair("rule", rule, "weight", weight, 3)
    if rule.shape[-3] != weight.shape[-3]:
        raise KernelShapeError(
            f"`rule` must have as many terms as the weight ({weight.shape[-3]}), but has {rule.shape[-3]}. "
            "Both stack their terms in dimension -3."
        )
    return _sum(rule, weight, backend)


def _sum(rule: Tensor, weight: Tensor, backend: str = "auto") -> Tensor:
    check_backend(backend)
    try:
        batch = torch.broadcast_shapes(rule.shape[:-3], weight.shape[:-3])
    except RuntimeError as error:
        raise KernelShapeError(
            f"The leading dimensions of the two factors must broadcast, but are {tuple(rule.shape[:-3])} and "
            f"{tuple(weight.shape[:-3])}. Give one of them none, or equal ones."
        ) from error
    dtype = torch.promote_types(rule.dtype, weight.dtype)
    rule = rule.to(dtype).expand(*batch, *rule.shape[-3:]).reshape(-1, *rule.shape[-3:])
    weight = weight.to(dtype).expand(*batch, *weight.shape[-3:]).reshape(-1, *weight.shape[-3:])
    out = torch.ops.weft.kronecker_sum(rule, weight, backend)
    return out.reshape(*batch, *out.shape[-2:])


def _check_pair(first: str, a: Tensor, second: str, b: Tensor, rank: int) -> None:
    for name, tensor in ((first, a), (second, b)):
        if not isinstance(tensor, Tensor):
            raise KernelTypeError(
                f"`{name}` must be a tensor, but is a {type(tensor).__name__}. Wrap it with torch.as_tensor."
            )
        if tensor.dim() < rank:
            raise KernelShapeError(
                f"`{name}` must have at least {rank} dimensions, but has shape {tuple(tensor.shape)}. "
                "Add the missing leading dimensions."
            )
    check_tensors(a, {second: b})
    check_floating({first: a, second: b})


def _flat(rule: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return rule.flatten(2), weight.flatten(2)


def _forward(rule: Tensor, weight: Tensor, backend: str) -> Tensor:
    if use_triton(rule, backend):
        from weft.kernels.kronecker import launch

        return launch.kronecker_sum(rule, weight)
    slots, _, a, b = rule.shape
    c, d = weight.shape[2:]
    flat_rule, flat_weight = _flat(rule, weight)
    ordered = torch.bmm(flat_rule.transpose(1, 2), flat_weight).view(slots, a, b, c, d)
    return ordered.transpose(2, 3).reshape(slots, a * c, b * d)


def _forward_fake(rule: Tensor, weight: Tensor, backend: str) -> Tensor:
    return rule.new_empty((rule.shape[0], rule.shape[2] * weight.shape[2], rule.shape[3] * weight.shape[3]))


def _backward(gradient: Tensor, rule: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    slots, _, a, b = rule.shape
    c, d = weight.shape[2:]
    flat_rule, flat_weight = _flat(rule, weight)
    ordered = gradient.reshape(slots, a, c, b, d).transpose(2, 3).reshape(slots, a * b, c * d)
    drule = torch.bmm(flat_weight, ordered.transpose(1, 2)).view(rule.shape)
    return drule, torch.bmm(flat_rule, ordered).view(weight.shape)


def _backward_fake(gradient: Tensor, rule: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return rule.new_empty(rule.shape), weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _autograd(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    drule, dweight = torch.ops.weft.kronecker_sum_backward(gradient, *ctx.saved_tensors)
    return drule, dweight, None


def _flops(rule: Any, weight: Any, *others: Any, out_val: Any = None, **named: Any) -> int:
    slots, terms, a, b = rule
    return 2 * slots * terms * a * b * weight[2] * weight[3]


def _backward_flops(gradient: Any, rule: Any, weight: Any, *others: Any, **named: Any) -> int:
    return 2 * _flops(rule, weight)


registration.define(
    "kronecker_sum", "(Tensor rule, Tensor weight, str backend) -> Tensor", _forward, _forward_fake
)
registration.define(
    "kronecker_sum_backward", "(Tensor gradient, Tensor rule, Tensor weight) -> (Tensor, Tensor)", _backward,
    _backward_fake,
)  # fmt: skip
registration.differentiate("kronecker_sum", _autograd, _setup_context)
registration.forbid_double_backward("kronecker_sum_backward")
# Weights are built in their own precision; whoever multiplies by them casts the result once.
registration.autocast("kronecker_sum", lambda dtype, arguments: arguments)
registration.count_flops("kronecker_sum", _flops)
registration.count_flops("kronecker_sum_backward", _backward_flops)
