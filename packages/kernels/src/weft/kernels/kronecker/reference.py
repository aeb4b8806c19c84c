"""``weft::kronecker_chain``: y = ((x by blocks · S) · M) by blocks · T + bias, S or T optional.

Forward, for T tokens, with blocks as rows of a reshaped matrix:

    U = x[T·a, m] · S;   V = U[T, aK] · M;   y = V[T·b, K] · T

Backward, with dV = dy · Tᵀ and dU = dV · Mᵀ reshaped alike:

    dT = Vᵀ dy    dM = Uᵀ dV    dS = xᵀ dU    dx = dU Sᵀ

U is kept for the backward, V (as thin as U) is computed again. The bias rides in the last product: V gets b
more columns that hold the identity pattern and T the b pieces of the bias as rows, so it costs no pass over
y, neither forward nor backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels import registration
from weft.kernels.backends import use_triton

_HANDFUL = 16


def block_product(x: Tensor, matrix: Tensor | None) -> Tensor:
    """(tokens, blocks · m) times (m, K) block by block → (tokens, blocks · K); x itself without a matrix."""
    if matrix is None:
        return x
    tokens, (width, thin) = x.shape[0], matrix.shape
    blocks = x.shape[1] // width
    rows = x.reshape(tokens * blocks, width)
    # Libraries are faster with a handful of rows on the left than with as few columns on the right.
    handful = thin < min(width, _HANDFUL)
    product = torch.mm(matrix.t(), rows.t()).t().contiguous() if handful else torch.mm(rows, matrix)
    return product.view(tokens, blocks * thin)


def block_outer(x: Tensor, gradient: Tensor, matrix: Tensor) -> Tensor:
    """Gradient of `matrix` in `block_product(x, matrix)`."""
    wide, thin = x.reshape(-1, matrix.shape[0]), gradient.reshape(-1, matrix.shape[1])
    if matrix.shape[1] < matrix.shape[0]:
        # Libraries are several times as fast with the few rows on the left.
        return torch.mm(thin.t(), wide).t().contiguous()
    return torch.mm(wide.t(), thin)


def with_bias(v: Tensor, right: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """V and T widened so that their block product adds `bias`, cut into rows of T."""
    tokens, width = v.shape[0], right.shape[0]
    blocks = v.shape[1] // width
    pattern = torch.eye(blocks, dtype=v.dtype, device=v.device).expand(tokens, blocks, blocks)
    widened = torch.cat((v.view(tokens, blocks, width), pattern), 2)
    return widened.view(tokens, -1), torch.cat((right, bias.view(blocks, -1)))


def expand(v: Tensor, right: Tensor | None, bias: Tensor | None) -> Tensor:
    """The last product with its bias."""
    if right is None:
        return v if bias is None else v + bias
    if bias is not None:
        v, right = with_bias(v, right, bias)
    return block_product(v, right)


def _forward(
    x: Tensor, left: Tensor | None, middle: Tensor, right: Tensor | None, bias: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    if _kernels_serve(x, left, right, backend):
        from weft.kernels.kronecker import launch

        u = x if left is None else launch.contract(x, left)
        v = torch.mm(u, middle)
        y = expand(v, right, bias) if right is None else launch.expand(v, right, bias)
        return y, (x.new_empty(0) if left is None else u)
    u = block_product(x, left)
    y = expand(torch.mm(u, middle), right, bias)
    return y, (x.new_empty(0) if left is None else u)


def _forward_fake(
    x: Tensor, left: Tensor | None, middle: Tensor, right: Tensor | None, bias: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    width = middle.shape[1] if right is None else middle.shape[1] // right.shape[0] * right.shape[1]
    y = x.new_empty((x.shape[0], width))
    return y, (x.new_empty(0) if left is None else x.new_empty((x.shape[0], middle.shape[0])))


def _backward(
    dy: Tensor, x: Tensor, u: Tensor, left: Tensor | None, middle: Tensor, right: Tensor | None,
    bias: Tensor | None,
    need_x: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    if _kernels_serve(x, left, right, backend):
        return _backward_by_kernels(dy.contiguous(), x, u, left, middle, right, bias, need_x)
    none = x.new_empty(0)
    narrow = x if left is None else u
    dright = dbias = none
    dv = dy
    if right is None:
        dbias = none if bias is None else dy.sum(0)
    else:
        v = torch.mm(narrow, middle)
        dright, dbias = right_gradients(v, dy, right, bias)
        dv = block_product(dy, right.t())
    dmiddle = torch.mm(narrow.t(), dv)
    if left is None:
        return (torch.mm(dv, middle.t()) if need_x else none), none, dmiddle, dright, dbias
    du = torch.mm(dv, middle.t())
    dx = block_product(du, left.t()) if need_x else none
    return dx, block_outer(x, du, left), dmiddle, dright, dbias


def _kernels_serve(x: Tensor, left: Tensor | None, right: Tensor | None, backend: str) -> bool:
    """Whether the kernels run the wide products of this call."""
    if not use_triton(x, backend):
        return False
    from weft.kernels.kronecker import launch

    thin = [
        t for t in (None if left is None else left.shape[1], None if right is None else right.shape[0]) if t
    ]
    return launch.serves(*thin) if thin else False


def _backward_by_kernels(
    dy: Tensor,
    x: Tensor,
    u: Tensor,
    left: Tensor | None,
    middle: Tensor,
    right: Tensor | None,
    bias: Tensor | None,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from weft.kernels.kronecker import launch

    none = x.new_empty(0)
    narrow = x if left is None else u
    dleft = dright = none
    dbias = none if bias is None else dy.sum(0)
    dv = dy
    if right is not None:
        v = torch.mm(narrow, middle)
        dv = launch.contract(dy, right.t())
        dright = (
            launch.outer(dy.view(-1, right.shape[1]), v.view(-1, right.shape[0])).t().to(x.dtype).contiguous()
        )
    dmiddle = torch.mm(narrow.t(), dv)
    dx = torch.mm(dv, middle.t())
    if left is not None:
        dleft = launch.outer(x.reshape(-1, left.shape[0]), dx.view(-1, left.shape[1])).to(x.dtype)
        dx = launch.expand(dx, left.t(), None) if need_x else none
    return (dx if need_x else none), dleft, dmiddle, dright, dbias


def right_gradients(v: Tensor, dy: Tensor, right: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of T and of the bias from one product."""
    if bias is None:
        return block_outer(v, dy, right), v.new_empty(0)
    widened, stacked = with_bias(v, right, bias)
    both = block_outer(widened, dy, stacked)
    return both[: right.shape[0]].clone(), both[right.shape[0] :].reshape(-1).clone()


def _backward_fake(
    dy: Tensor, x: Tensor, u: Tensor, left: Tensor | None, middle: Tensor, right: Tensor | None,
    bias: Tensor | None,
    need_x: bool, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    def like(tensor: Tensor | None) -> Tensor:
        return x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)

    return like(x if need_x else None), like(left), like(middle), like(right), like(bias)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, left, middle, right, bias, backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, output[1], left, middle, right, bias)
    ctx.backend = backend


def _autograd(ctx: Any, dy: Tensor, unused: Tensor | None) -> tuple[Any, ...]:
    asked = ctx.needs_input_grad
    found = torch.ops.weft.kronecker_chain_backward(dy, *ctx.saved_tensors, bool(asked[0]), ctx.backend)
    return (*(gradient if need else None for need, gradient in zip(asked, found, strict=False)), None)


def _flops(
    x: Any, left: Any, middle: Any, right: Any, *others: Any, out_val: Any = None, **named: Any
) -> int:
    last = 0 if right is None else middle[1] * right[1]
    first = 0 if left is None else x[1] * left[1]
    return 2 * x[0] * (first + middle[0] * middle[1] + last)


def _backward_flops(
    dy: Any, x: Any, u: Any, left: Any, middle: Any, right: Any, *others: Any, **named: Any
) -> int:
    return 2 * _flops(x, left, middle, right)


_TENSORS = "Tensor? left, Tensor middle, Tensor? right, Tensor? bias"
registration.define(
    "kronecker_chain", f"(Tensor x, {_TENSORS}, str backend) -> (Tensor, Tensor)", _forward, _forward_fake
)
registration.define(
    "kronecker_chain_backward",
    f"(Tensor dy, Tensor x, Tensor u, {_TENSORS}, bool need_x, str backend) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
registration.differentiate("kronecker_chain", _autograd, _setup_context)
registration.forbid_double_backward("kronecker_chain_backward")
registration.autocast("kronecker_chain", registration.cast_all)
registration.count_flops("kronecker_chain", _flops)
registration.count_flops("kronecker_chain_backward", _backward_flops)
