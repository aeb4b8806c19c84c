"""Which order of products a Kronecker-sum linear map takes: a pure function of shapes.

Each order has an exact count of floating-point operations and of elements moved per token, plus a part that
does not depend on the number of tokens (building matrices). The cheapest by ``operations + balance ·
elements`` wins; the balance is how many operations the machine does in the time it moves one element.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.kernels.errors import KernelValueError

DEFAULT_BALANCE = 24
# Enough tokens for one-off costs to vanish; used where the number of tokens is not known.
MANY_TOKENS = 1 << 20


@dataclass(frozen=True)
class Shape:
    """Sizes of ``Σ_i A_i ⊗ B_i``: A (terms, a, b), B (terms, m, k), rank of B or None if B is full."""

    terms: int
    a: int
    b: int
    m: int
    k: int
    rank: int | None

    @property
    def d_in(self) -> int:
        """Input width."""
        return self.a * self.m

    @property
    def d_out(self) -> int:
        """Output width."""
        return self.b * self.k


@dataclass(frozen=True)
class Order:
    """One way to compute the map and its exact cost."""

    name: str
    flops_per_token: int
    elements_per_token: int
    flops_once: int
    elements_once: int

    def cost(self, tokens: int, balance: float) -> float:
        """Operations plus weighted traffic for `tokens` tokens."""
        per_token = self.flops_per_token + balance * self.elements_per_token
        return tokens * per_token + self.flops_once + balance * self.elements_once


def orders(shape: Shape) -> tuple[Order, ...]:
    """All orders `shape` allows."""
    s = shape
    dense = s.d_in * s.d_out
    ends = s.d_in + s.d_out
    materialise = Order("materialise", 2 * dense, ends, 2 * s.terms * dense, 2 * dense)
    if s.rank is None:
        right = s.terms * s.a * s.k
        left = s.terms * s.b * s.m
        return (
            materialise,
            Order("right_first", 2 * right * (s.m + s.b), ends + 2 * right, 0, s.terms * s.m * s.k),
            Order("left_first", 2 * left * (s.a + s.k), ends + 4 * left, 0, s.terms * s.m * s.k),
        )
    width = s.terms * s.rank
    into, out_of = s.a * width, s.b * width
    thin_ends = 2 * width * ends
    return (
        Order("materialise", 2 * dense, ends, 2 * dense * s.terms + 2 * width * s.m * s.k, 2 * dense),
        Order("merge_right", 2 * width * s.d_in + 2 * into * s.d_out, ends + 2 * into, into * s.d_out,
        into * s.d_out),
        Order("merge_left", 2 * s.d_in * out_of + 2 * width * s.d_out, ends + 2 * out_of, s.d_in * out_of,
        s.d_in * out_of),
        Order("thin", thin_ends + 2 * into * out_of, ends + 2 * (into + out_of), 0, into * out_of),
        Order("thin_blocks", thin_ends + 2 * s.a * out_of, ends + 4 * (into + out_of), 0, into),
    )  # fmt: skip


def choose_order(
    shape: Shape, tokens: int = MANY_TOKENS, balance: float = DEFAULT_BALANCE, name: str | None = None
) -> Order:
    """The cheapest order, or the one called `name`.

    Raises:
        KernelValueError: no order of this shape is called `name`.
    """
    possible = orders(shape)
    if name is None:
        # A plain loop, because compilers trace through this function.
        best = possible[0]
        for order in possible[1:]:
            if order.cost(tokens, balance) < best.cost(tokens, balance):
                best = order
        return best
    for order in possible:
        if order.name == name:
            return order
    raise KernelValueError(
        f"`order` must be one of {', '.join(order.name for order in possible)}, but is {name!r}. "
        "Leave it out for the cheapest."
    )
