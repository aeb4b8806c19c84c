"""The public function `kronecker_linear`."""

from __future__ import annotations

import torch
from torch import Tensor

import weft.kernels.kronecker.reference  # noqa: F401  (registers the op)
from weft.kernels.backends import check_backend
from weft.kernels.checks import check_floating, check_rank, check_size, check_tensors
from weft.kernels.errors import KernelShapeError, KernelTypeError, KernelValueError
from weft.kernels.kronecker import factors
from weft.kernels.kronecker.orders import MANY_TOKENS, Shape, choose_order
from weft.kernels.kronecker.product import phm_weight


def kronecker_linear(
    x: Tensor,
    rule: Tensor,
    *,
    weight: Tensor | None = None,
    left: Tensor | None = None,
    right: Tensor | None = None,
    bias: Tensor | None = None,
    plan: str | None = None,
    backend: str = "auto",
) -> Tensor:
    """A linear map whose matrix is a sum of Kronecker products, ``y = x · Σ_i rule_i ⊗ B_i + bias``.

    The order of the products is chosen from the shapes alone. With low-rank B the d_in × d_out matrix is
    built only where that is cheaper, which it is not below about half the full rank.

    Args:
        x: shape (..., d_in).
        rule: shape (terms, p, q); for a PHM layer terms = p = q = n.
        weight: full B, shape (terms, d_in / p, d_out / q).
        left: low-rank B instead of `weight`, B_i = left_i · right_i, shape (terms, d_in / p, rank).
        right: shape (terms, rank, d_out / q).
        bias: shape (d_out,).
        plan: name of an order of `planner.orders`, for tests and measurements. None: the cheapest.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Shape (..., d_out), dtype of `x`.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: an argument is not a floating-point tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: not exactly one of `weight` and (`left`, `right`) is given, or `plan` or `backend`
            is unknown.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Zhang et al. 2021 (PHM), eq. 2 and 3; Mahabadi et al. 2021 (Compacter), eq. 6.

    Example:
        >>> x, rule = torch.randn(5, 8), torch.randn(2, 2, 2)
        >>> kronecker_linear(x, rule, left=torch.randn(2, 4, 1), right=torch.randn(2, 1, 3)).shape
        torch.Size([5, 6])
    """
    _check(x, rule, weight, left, right, bias)
    check_backend(backend)
    rule = rule.to(x.dtype)
    weight, left, right, bias = (None if t is None else t.to(x.dtype) for t in (weight, left, right, bias))
    flat = x.reshape(-1, x.shape[-1])
    if weight is not None:
        y = _full(flat, rule, weight, plan)
        y = y if bias is None else y + bias
    else:
        assert left is not None
        assert right is not None
        y = _low_rank(flat, rule, left, right, bias, plan, backend)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def shape_of(rule: Tensor, first: Tensor, last: Tensor, rank: int | None) -> Shape:
    """The planner's view of a map whose B starts with `first` and ends with `last`."""
    terms, a, b = rule.shape
    return Shape(terms, a, b, first.shape[1], last.shape[2], rank)


def _full(x: Tensor, rule: Tensor, weight: Tensor, plan: str | None) -> Tensor:
    shape = shape_of(rule, weight, weight, None)
    # A symbolic number of tokens must not become a constant of the compiled graph.
    tokens = MANY_TOKENS if torch.compiler.is_compiling() else max(x.shape[0], 1)
    name = choose_order(shape, tokens, name=plan).name
    if name == "materialise":
        return x @ phm_weight(rule, weight)
    blocks = x.view(-1, shape.a, shape.m)
    if name == "right_first":
        side_by_side = weight.permute(1, 0, 2).reshape(shape.m, -1)
        products = (blocks @ side_by_side).view(-1, shape.a * shape.terms, shape.k)
        mix = rule.permute(2, 1, 0).reshape(shape.b, -1)
        return (mix @ products).reshape(-1, shape.d_out)
    mixed = rule.permute(0, 2, 1).reshape(-1, shape.a) @ blocks
    mixed = (
        mixed.view(-1, shape.terms, shape.b, shape.m)
        .transpose(1, 2)
        .reshape(-1, shape.b, shape.terms * shape.m)
    )
    return (mixed @ weight.reshape(-1, shape.k)).reshape(-1, shape.d_out)


def _low_rank(
    x: Tensor, rule: Tensor, left: Tensor, right: Tensor, bias: Tensor | None, plan: str | None, backend: str
) -> Tensor:
    rank = left.shape[2]
    shape = shape_of(rule, left, right, rank)
    name = choose_order(shape, name=plan).name
    if name == "materialise":
        y = x @ phm_weight(rule, left=left, right=right)
        return y if bias is None else y + bias
    if name == "thin_blocks":
        narrow = (x.view(-1, shape.m) @ factors.shared_left(left)).view(-1, shape.a, shape.terms, rank)
        mixed = torch.einsum("tpir,ipq->tqir", narrow, rule).reshape(-1, shape.terms * rank)
        y = (mixed @ factors.shared_right(right)).view(-1, shape.d_out)
        return y if bias is None else y + bias
    first = None if name == "merge_left" else factors.shared_left(left)
    last = None if name == "merge_right" else factors.shared_right(right)
    if name == "merge_right":
        middle = factors.merged_right(rule, right)
    else:
        middle = factors.merged_left(rule, left) if name == "merge_left" else factors.mixing(rule, rank)
    y, _ = torch.ops.weft.kronecker_chain(x, first, middle, last, bias, backend)
    return y


def _check(
    x: Tensor,
    rule: Tensor,
    weight: Tensor | None,
    left: Tensor | None,
    right: Tensor | None,
    bias: Tensor | None,
) -> None:
    if not isinstance(x, Tensor):
        raise KernelTypeError(
            f"`x` must be a tensor, but is a {type(x).__name__}. Wrap it with torch.as_tensor."
        )
    named = {"rule": rule, "weight": weight, "left": left, "right": right, "bias": bias}
    check_tensors(x, named)
    check_floating({"x": x, **named})
    check_rank("rule", rule, 3, "(terms, p, q)")
    if (weight is None) == (left is None and right is None):
        raise KernelValueError(
            "`weight` must be given, or `left` and `right`, but not both and not neither. Choose the full or "
            "the "
            "low-rank form."
        )
    terms, a, b = rule.shape
    if weight is not None:
        check_rank("weight", weight, 3, "(terms, d_in / p, d_out / q)")
        first, last = weight, weight
    else:
        if left is None or right is None:
            raise KernelValueError(
                "`left` and `right` must be given together, but one is None. Give both factors of B."
            )
        check_low_rank("left", left, "right", right, terms)
        first, last = left, right
    check_size("weight" if weight is not None else "left", first, 0, terms, "the terms of `rule`")
    if x.dim() < 1 or x.shape[-1] != a * first.shape[1]:
        raise KernelShapeError(
            f"`x` must have last size {a * first.shape[1]} (p · the input width of B), but has shape "
            f"{tuple(x.shape)}. Check `rule` and B."
        )
    if bias is not None:
        check_rank("bias", bias, 1, "(d_out,)")
        check_size("bias", bias, 0, b * last.shape[2], "q · the output width of B")


def check_low_rank(left_name: str, left: Tensor, right_name: str, right: Tensor, terms: int) -> None:
    """Require two factors that fit each other and a rule of `terms` terms."""
    check_rank(left_name, left, 3, "(terms, d_in / p, rank)")
    check_rank(right_name, right, 3, "(terms, rank, d_out / q)")
    check_size(left_name, left, 0, terms, "the terms of the rule")
    check_size(right_name, right, 0, terms, "the terms of the rule")
    check_size(right_name, right, 1, left.shape[2], f"the rank of `{left_name}`")
