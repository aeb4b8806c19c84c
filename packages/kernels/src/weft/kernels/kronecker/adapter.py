"""The public function `kronecker_bottleneck`: a Compacter adapter in one op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import weft.kernels.kronecker.op  # noqa: F401  (registers the op)
from weft.kernels.backends import check_backend
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.checks import check_choice, check_floating, check_rank, check_size, check_tensors
from weft.kernels.errors import KernelShapeError, KernelTypeError
from weft.kernels.kronecker import factors
from weft.kernels.kronecker.api import check_low_rank


class LowRankKronecker(NamedTuple):
    """A matrix ``Σ_i rule_i ⊗ (left_i · right_i)`` by its factors.

    Attributes:
        rule: shape (terms, p, q).
        left: shape (terms, d_in / p, rank).
        right: shape (terms, rank, d_out / q).
    """

    rule: Tensor
    left: Tensor
    right: Tensor

    @property
    def d_in(self) -> int:
        """Rows of the matrix."""
        return self.rule.shape[1] * self.left.shape[1]

    @property
    def d_out(self) -> int:
        """Columns of the matrix."""
        return self.rule.shape[2] * self.right.shape[2]


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
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: an argument is not a floating-point tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: `activation` or `backend` is unknown.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Mahabadi et al. 2021 (Compacter), eq. 6 and section 3.2; the scale is that of AdapterHub.

    Example:
        >>> rule = torch.randn(2, 2, 2)
        >>> down = LowRankKronecker(rule, torch.randn(2, 8, 1), torch.randn(2, 1, 3))
        >>> up = LowRankKronecker(rule, torch.randn(2, 3, 1), torch.randn(2, 1, 8))
        >>> kronecker_bottleneck(torch.randn(5, 16), down, up).shape
        torch.Size([5, 16])
    """
    _check(x, down, up, down_bias, up_bias, residual)
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


def _check(
    x: Tensor,
    down: LowRankKronecker,
    up: LowRankKronecker,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
) -> None:
    if not isinstance(x, Tensor):
        raise KernelTypeError(
            f"`x` must be a tensor, but is a {type(x).__name__}. Wrap it with torch.as_tensor."
        )
    named: dict[str, Tensor | None] = {"down_bias": down_bias, "up_bias": up_bias, "residual": residual}
    for part, matrix in (("down", down), ("up", up)):
        named |= {f"{part}.{field}": factor for field, factor in matrix._asdict().items()}
    check_tensors(x, named)
    check_floating({"x": x, **named})
    for part, matrix in (("down", down), ("up", up)):
        check_rank(f"{part}.rule", matrix.rule, 3, "(terms, p, q)")
        check_low_rank(f"{part}.left", matrix.left, f"{part}.right", matrix.right, matrix.rule.shape[0])
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
        if bias is not None:
            check_rank(name, bias, 1, f"({width},)")
            check_size(name, bias, 0, width, "the columns of its matrix")
    expected = (*x.shape[:-1], up.d_out)
    if residual is not None and residual.shape != expected:
        raise KernelShapeError(
            f"`residual` must have the shape of the output {tuple(expected)}, but has "
            f"{tuple(residual.shape)}. Check the columns of `up`."
        )
