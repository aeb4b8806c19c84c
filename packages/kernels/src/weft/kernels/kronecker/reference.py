"""Kronecker sums in plain torch: what the kernels are checked against, and the CPU implementation.

The matrix, for A of shape (terms, a, b) and B of shape (terms, c, d):

    W[p·c + u, q·d + v] = Σ_i A_i[p, q] · B_i[u, v]

With A flattened to (terms, ab) and B to (terms, cd) this is one matrix product Aᵀ B followed by a transposition, so no
intermediate with a `terms` axis of the size of W exists: dA = B · dW'ᵀ and dB = A · dW', with dW' in the order
(p, q, u, v).

The map without the matrix, for T tokens, with blocks as rows of a reshaped matrix (matrices: see `factors`):

    U = x[T·a, m] · S;   V = U[T, aK] · M;   y = V[T·b, K] · T

and backward, with dV = dy · Tᵀ and dU = dV · Mᵀ reshaped alike:

    dT = Vᵀ dy    dM = Uᵀ dV    dS = xᵀ dU    dx = dU Sᵀ

U is kept for the backward, V (as thin as U) is computed again. The bias rides in the last product: V gets b more
columns that hold the identity pattern and T the b pieces of the bias as rows, so it costs no pass over y, neither
forward nor backward.

A whole adapter, with x in blocks x_p and y in blocks y_q:

    u_p = x_p S;  z = u G + b_down;  h = act(z);  v = s · h F;  y_q = v_q T + s · b_up,q + residual_q

and backward

    dv_q = dy_q Tᵀ    dT = Σ_q v_qᵀ dy_q    db_up = s · Σ dy    dF = s · hᵀ dv    dh = s · dv Fᵀ
    dz = dh ∘ act'(z)    dG = uᵀ dz    db_down = Σ dz    du = dz Gᵀ    dS = Σ_p x_pᵀ du_p    dx_p = du_p Sᵀ (+ dy_p)

Only x, z and u are kept, and of these z and u are thin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weft.kernels.bottleneck.activations import activate, activation_backward
from weft.kernels.kronecker.factors import AdapterFactors, ThinFactors, shared_left, shared_right

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


def right_gradients(
    v: Tensor, dy: Tensor, right: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of T and of the bias from one product."""
    if bias is None:
        return block_outer(v, dy, right), None
    widened, stacked = with_bias(v, right, bias)
    both = block_outer(widened, dy, stacked)
    return both[: right.shape[0]].clone(), both[right.shape[0] :].reshape(-1).clone()


def sum_forward(rule: Tensor, weight: Tensor) -> Tensor:
    """Matrices (slots, a·c, b·d) of rules (slots, terms, a, b) and weights (slots, terms, c, d)."""
    slots, _, a, b = rule.shape
    c, d = weight.shape[2:]
    ordered = torch.bmm(rule.flatten(2).transpose(1, 2), weight.flatten(2)).view(slots, a, b, c, d)
    return ordered.transpose(2, 3).reshape(slots, a * c, b * d)


def sum_backward(gradient: Tensor, rule: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the rules and of the weights."""
    slots, _, a, b = rule.shape
    c, d = weight.shape[2:]
    ordered = gradient.reshape(slots, a, c, b, d).transpose(2, 3).reshape(slots, a * b, c * d)
    drule = torch.bmm(weight.flatten(2), ordered.transpose(1, 2)).view(rule.shape)
    return drule, torch.bmm(rule.flatten(2), ordered).view(weight.shape)


def full_map(x: Tensor, rule: Tensor, weight: Tensor, order: str) -> Tensor:
    """``x · Σ_i rule_i ⊗ weight_i`` for x (tokens, d_in) and full B, in the order ``right_first`` or ``left_first``."""
    terms, a, b = rule.shape
    m, k = weight.shape[1:]
    blocks = x.view(-1, a, m)
    if order == "right_first":
        side_by_side = weight.permute(1, 0, 2).reshape(m, -1)
        products = (blocks @ side_by_side).view(-1, a * terms, k)
        return (rule.permute(2, 1, 0).reshape(b, -1) @ products).reshape(-1, b * k)
    mixed = rule.permute(0, 2, 1).reshape(-1, a) @ blocks
    mixed = mixed.view(-1, terms, b, m).transpose(1, 2).reshape(-1, b, terms * m)
    return (mixed @ weight.reshape(-1, k)).reshape(-1, b * k)


def thin_blocks_map(x: Tensor, rule: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The map with low-rank B whose blocks are mixed by the rule itself, not by M."""
    terms, a, b = rule.shape
    rank = left.shape[2]
    narrow = (x.view(-1, left.shape[1]) @ shared_left(left)).view(-1, a, terms, rank)
    mixed = torch.einsum("tpir,ipq->tqir", narrow, rule).reshape(-1, terms * rank)
    return (mixed @ shared_right(right)).view(-1, b * right.shape[2])


def chain_forward(x: Tensor, factors: ThinFactors) -> tuple[Tensor, Tensor]:
    """Output (tokens, d_out), and U (tokens, aK) or, without S, x."""
    u = block_product(x, factors.s)
    return expand(torch.mm(u, factors.m), factors.t, factors.bias), u


def chain_backward(
    dy: Tensor, x: Tensor, u: Tensor, factors: ThinFactors, need_x: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of x, S, M, T and the bias; `u` is x without S."""
    s, m, t, bias = factors
    dt, dv = None, dy
    if t is None:
        dbias = None if bias is None else dy.sum(0)
    else:
        dt, dbias = right_gradients(torch.mm(u, m), dy, t, bias)
        dv = block_product(dy, t.t())
    dm = torch.mm(u.t(), dv)
    if s is None:
        return (torch.mm(dv, m.t()) if need_x else None), None, dm, dt, dbias
    du = torch.mm(dv, m.t())
    return (block_product(du, s.t()) if need_x else None), block_outer(x, du, s), dm, dt, dbias


def adapter_forward(
    x: Tensor, factors: AdapterFactors, residual: Tensor | None, factor: float, activation: str, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The adapter's output, z (tokens, r) and u (tokens, aK); `save` is for kernels, which write them only if asked."""
    u = block_product(x, factors.s)
    z = torch.mm(u, factors.g) if factors.down_bias is None else torch.addmm(factors.down_bias, u, factors.g)
    v, t = torch.mm(activate(z, activation) * factor, factors.f), factors.t
    if factors.up_bias is not None:
        v, t = with_bias(v, t, factors.up_bias * factor)
    return _expand(v, t, residual), z, u


def adapter_backward(
    dy: Tensor, z: Tensor, u: Tensor, x: Tensor, factors: AdapterFactors, factor: float, activation: str,
    add_input: bool, need_x: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x and of the factors in their order; `add_input` adds dy to dx."""
    g = dy.to(x.dtype).contiguous()
    h = activate(z, activation) * factor
    dt, dup_bias = right_gradients(torch.mm(h, factors.f), g, factors.t, factors.up_bias)
    dv = block_product(g, factors.t.t())
    dz = activation_backward(torch.mm(dv, factors.f.t()) * factor, z, activation)
    du = torch.mm(dz, factors.g.t())
    dx = _expand(du, factors.s.t(), dy if add_input else None) if need_x else None
    return (
        dx, block_outer(x, du, factors.s), torch.mm(u.t(), dz), torch.mm(h.t(), dv), dt, dz.sum(0),
        None if dup_bias is None else dup_bias * factor,
    )  # fmt: skip


def _expand(v: Tensor, right: Tensor, residual: Tensor | None) -> Tensor:
    if residual is None or residual.dtype != v.dtype:
        y = block_product(v, right)
        return y if residual is None else residual + y
    blocks = residual.reshape(-1, right.shape[1])
    return torch.addmm(blocks, v.reshape(-1, right.shape[0]), right).view(residual.shape)
