"""The public functions `kron`, `phm_weight`, `kronecker_linear` and `kronecker_bottleneck`."""

from __future__ import annotations

import torch
from torch import Tensor

import weft.kernels.kronecker.op  # noqa: F401  (registers the ops)
from weft.kernels.backends import check_backend
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.checks import (
    check_choice,
    check_floating,
    check_is_tensor,
    check_rank,
    check_shape,
    check_size,
    check_tensors,
)
from weft.kernels.errors import KernelShapeError, KernelValueError
from weft.kernels.kronecker import factors, reference
from weft.kernels.kronecker.factors import LowRankKronecker
from weft.kernels.kronecker.orders import MANY_TOKENS, Shape, choose_order


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


def kronecker_linear(
    x: Tensor,
    rule: Tensor,
    *,
    weight: Tensor | None = None,
    left: Tensor | None = None,
    right: Tensor | None = None,
    bias: Tensor | None = None,
    order: str | None = None,
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
        order: name of an order of products that `orders.orders` lists, for tests and measurements. None: the
            cheapest.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Shape (..., d_out), dtype of `x`.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: an argument is not a floating-point tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: not exactly one of `weight` and (`left`, `right`) is given, or `order` or `backend`
            is unknown.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Zhang et al. 2021 (PHM), eq. 2 and 3; Mahabadi et al. 2021 (Compacter), eq. 6.

    Example:
        >>> x, rule = torch.randn(5, 8), torch.randn(2, 2, 2)
        >>> kronecker_linear(x, rule, left=torch.randn(2, 4, 1), right=torch.randn(2, 1, 3)).shape
        torch.Size([5, 6])
    """
    _check_linear(x, rule, weight, left, right, bias)
    check_backend(backend)
    rule = rule.to(x.dtype)
    weight, left, right, bias = (None if t is None else t.to(x.dtype) for t in (weight, left, right, bias))
    flat = x.reshape(-1, x.shape[-1])
    if weight is not None:
        y = _full(flat, rule, weight, order)
        y = y if bias is None else y + bias
    else:
        assert left is not None
        assert right is not None
        y = _low_rank(flat, rule, left, right, bias, order, backend)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def kronecker_bottleneck(
    x: Tensor,
    down: LowRankKronecker,
    up: LowRankKronecker,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float = 1.0,
    activation: str = "gelu_tanh",
    backend: str = "auto",
) -> Tensor:
    """A Compacter adapter without either of its matrices.

    It is ``y = residual + scale · (act(x · D + down_bias) · U + up_bias)`` with D and U sums of Kronecker
    products in low rank. For adapters of many tasks build the matrices with `phm_weight` and use
    `adapter_bottleneck`.

    Args:
        x: shape (..., d_in).
        down: factors of D (d_in, r).
        up: factors of U (r, d_out).
        down_bias: shape (r,).
        up_bias: shape (d_out,).
        residual: added to the result, shape (..., d_out); pass `x` itself for the usual adapter.
        scale: factor of the adapter's output, bias included.
        activation: ``relu``, ``gelu`` (exact), ``gelu_tanh``, ``silu`` or ``identity``.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Shape (..., d_out), dtype of `x`, promoted with that of `residual`.

    Raises:
        KernelError: as `kronecker_linear`; a KernelValueError also for an unknown `activation`.

    Source: Mahabadi et al. 2021 (Compacter), eq. 6 and section 3.2; the scale is that of AdapterHub.

    Example:
        >>> rule = torch.randn(2, 2, 2)
        >>> down = LowRankKronecker(rule, torch.randn(2, 8, 1), torch.randn(2, 1, 3))
        >>> up = LowRankKronecker(rule, torch.randn(2, 3, 1), torch.randn(2, 1, 8))
        >>> kronecker_bottleneck(torch.randn(5, 16), down, up).shape
        torch.Size([5, 16])
    """
    _check_adapter(x, down, up, down_bias, up_bias, residual)
    check_choice("activation", activation, ACTIVATIONS)
    check_backend(backend)
    down, up = (LowRankKronecker(*(factor.to(x.dtype) for factor in part)) for part in (down, up))
    down_bias, up_bias = (None if bias is None else bias.to(x.dtype) for bias in (down_bias, up_bias))
    add_input = residual is x
    y, _, _ = torch.ops.weft.kronecker_bottleneck(
        x.reshape(-1, x.shape[-1]),
        factors.shared_left(down.left),
        factors.merged_right(down.rule, down.right),
        factors.merged_left(up.rule, up.left),
        factors.shared_right(up.right),
        down_bias,
        up_bias,
        None if add_input or residual is None else residual.reshape(-1, up.d_out),
        float(scale),
        activation,
        add_input,
        torch.is_grad_enabled(),
        backend,
    )
    return y.reshape(*x.shape[:-1], up.d_out)


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
        check_is_tensor(name, tensor)
        if tensor.dim() < rank:
            raise KernelShapeError(
                f"`{name}` must have at least {rank} dimensions, but has shape {tuple(tensor.shape)}. "
                "Add the missing leading dimensions."
            )
    check_tensors(a, {second: b})
    check_floating({first: a, second: b})


def _full(x: Tensor, rule: Tensor, weight: Tensor, order: str | None) -> Tensor:
    # A symbolic number of tokens must not become a constant of the compiled graph.
    tokens = MANY_TOKENS if torch.compiler.is_compiling() else max(x.shape[0], 1)
    (terms, a, b), (_, m, k) = rule.shape, weight.shape
    name = choose_order(Shape(terms, a, b, m, k, None), tokens, name=order).name
    if name == "materialise":
        return x @ phm_weight(rule, weight)
    return reference.full_map(x, rule, weight, name)


def _low_rank(
    x: Tensor, rule: Tensor, left: Tensor, right: Tensor, bias: Tensor | None, order: str | None, backend: str
) -> Tensor:
    (terms, a, b), (_, m, rank) = rule.shape, left.shape
    name = choose_order(Shape(terms, a, b, m, right.shape[2], rank), name=order).name
    if name in ("materialise", "thin_blocks"):
        if name == "materialise":
            y = x @ phm_weight(rule, left=left, right=right)
        else:
            y = reference.thin_blocks_map(x, rule, left, right)
        return y if bias is None else y + bias
    first = None if name == "merge_left" else factors.shared_left(left)
    last = None if name == "merge_right" else factors.shared_right(right)
    if name == "thin":
        middle = factors.mixing(rule, rank)
    else:
        middle = factors.merged_right(rule, right) if last is None else factors.merged_left(rule, left)
    y, _ = torch.ops.weft.kronecker_chain(x, first, middle, last, bias, backend)
    return y


def _check_linear(
    x: Tensor,
    rule: Tensor,
    weight: Tensor | None,
    left: Tensor | None,
    right: Tensor | None,
    bias: Tensor | None,
) -> None:
    check_is_tensor("x", x)
    named = {"rule": rule, "weight": weight, "left": left, "right": right, "bias": bias}
    check_tensors(x, named)
    check_floating({"x": x, **named})
    check_rank("rule", rule, 3, "(terms, p, q)")
    if (weight is None) == (left is None and right is None):
        raise KernelValueError(
            "`weight` must be given, or `left` and `right`, but not both and not neither. Choose the full or "
            "the low-rank form."
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
        _check_low_rank("left", left, "right", right, terms)
        first, last = left, right
    check_size("weight" if weight is not None else "left", first, 0, terms, "the terms of `rule`")
    if x.dim() < 1 or x.shape[-1] != a * first.shape[1]:
        raise KernelShapeError(
            f"`x` must have last size {a * first.shape[1]} (p · the input width of B), but has shape "
            f"{tuple(x.shape)}. Check `rule` and B."
        )
    check_rank("bias", bias, 1, "(d_out,)")
    check_size("bias", bias, 0, b * last.shape[2], "q · the output width of B")


def _check_low_rank(left_name: str, left: Tensor, right_name: str, right: Tensor, terms: int) -> None:
    """Require two factors that fit each other and a rule of `terms` terms."""
    check_rank(left_name, left, 3, "(terms, d_in / p, rank)")
    check_rank(right_name, right, 3, "(terms, rank, d_out / q)")
    check_size(left_name, left, 0, terms, "the terms of the rule")
    check_size(right_name, right, 0, terms, "the terms of the rule")
    check_size(right_name, right, 1, left.shape[2], f"the rank of `{left_name}`")


def _check_adapter(
    x: Tensor,
    down: LowRankKronecker,
    up: LowRankKronecker,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
) -> None:
    check_is_tensor("x", x)
    named: dict[str, Tensor | None] = {"down_bias": down_bias, "up_bias": up_bias, "residual": residual}
    for part, matrix in (("down", down), ("up", up)):
        named |= {f"{part}.{field}": factor for field, factor in matrix._asdict().items()}
    check_tensors(x, named)
    check_floating({"x": x, **named})
    for part, matrix in (("down", down), ("up", up)):
        check_rank(f"{part}.rule", matrix.rule, 3, "(terms, p, q)")
        _check_low_rank(f"{part}.left", matrix.left, f"{part}.right", matrix.right, matrix.rule.shape[0])
    if x.dim() < 1 or x.shape[-1] != down.d_in:
        raise KernelShapeError(
            f"`x` must have last size {down.d_in} (rows of the down matrix), but has shape {tuple(x.shape)}. "
            "Check the factors of `down`."
        )
    if up.d_in != down.d_out:
        raise KernelShapeError(
            f"`up` must take {down.d_out} inputs (columns of the down matrix), but takes {up.d_in}. "
            "Check the bottleneck size of both."
        )
    for name, bias, width in (("down_bias", down_bias, down.d_out), ("up_bias", up_bias, up.d_out)):
        check_rank(name, bias, 1, f"({width},)")
        check_size(name, bias, 0, width, "the columns of its matrix")
    check_shape("residual", residual, (*x.shape[:-1], up.d_out), "the columns of `up`")
