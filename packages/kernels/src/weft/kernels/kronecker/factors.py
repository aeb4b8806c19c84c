"""The thin matrices a low-rank Kronecker sum factors into.

With B_i = L_i R_i, K = terms · rank and x cut into a blocks x_p of width m = d_in / a, the map y = x Σ_i A_i
⊗ L_i R_i is three thin products, none of which is d_in × d_out:

    u_p = x_p · S          S (m, K)          all L_i side by side, the same for every block
    v   = u · M            M (aK, bK)        A_i[p, q] on the diagonal of block (p, q)
    y_q = v_q · T          T (K, d_out / b)  all R_i stacked

M and T merge into G (aK, d_out) where the output is narrow, S and M into F (d_in, bK) where the input is.
All are built from at most a·b·K·max(m, K) elements by differentiable torch calls.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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


def shared_left(left: Tensor) -> Tensor:
    """S (m, K) from L (terms, m, rank)."""
    return left.permute(1, 0, 2).reshape(left.shape[1], -1)


def shared_right(right: Tensor) -> Tensor:
    """T (K, width) from R (terms, rank, width)."""
    return right.reshape(-1, right.shape[2])


def mixing(rule: Tensor, rank: int) -> Tensor:
    """M (aK, bK) from A (terms, a, b)."""
    terms, a, b = rule.shape
    width = terms * rank
    by_block = rule.permute(1, 2, 0).unsqueeze(-1).expand(a, b, terms, rank).reshape(a, b, width)
    return torch.diag_embed(by_block).permute(0, 2, 1, 3).reshape(a * width, b * width)


def merged_right(rule: Tensor, right: Tensor) -> Tensor:
    """G (aK, d_out) from A (terms, a, b) and R (terms, rank, width)."""
    terms, a, b = rule.shape
    rank, width = right.shape[1:]
    return torch.einsum("ipq,irv->pirqv", rule, right).reshape(a * terms * rank, b * width)


def merged_left(rule: Tensor, left: Tensor) -> Tensor:
    """F (d_in, bK) from A (terms, a, b) and L (terms, m, rank)."""
    terms, a, b = rule.shape
    width, rank = left.shape[1:]
    return torch.einsum("ipq,iur->puqir", rule, left).reshape(a * width, b * terms * rank)


class ThinFactors(NamedTuple):
    """The thin matrices of a map, S and T optional, with its bias (d_out,)."""

    s: Tensor | None
    m: Tensor
    t: Tensor | None
    bias: Tensor | None


class AdapterFactors(NamedTuple):
    """The matrices of an adapter: S (m, K) and G (aK, r) down, F (r, bK) and T (K, k) up, biases (r,) and (d_out,)."""

    s: Tensor
    g: Tensor
    f: Tensor
    t: Tensor
    down_bias: Tensor | None
    up_bias: Tensor | None

    @property
    def thin(self) -> tuple[int, int, int]:
        """The sizes that kernels keep in registers."""
        return self.s.shape[1], self.g.shape[1], self.t.shape[0]
