"""Agreement of tasks, free of the noise of batches: pure functions of inner products of gradients.

Let `g_im` be the gradient of task `i` on batch `m` of `M`, with mean `μ_i`. The plain cosine of two averaged gradients
is too small, because each norm holds the noise of its batches. Here every inner product leaves out the pairs of one
batch with itself:

    U_ij = Σ_{m≠n} <g_im, g_jn> / (M (M - 1)),        c_ij = U_ij / sqrt(U_ii U_jj)

`U_ij` is the mean, over all ways to split the batches into two independent halves, of the inner product of one task's
mean over the first half with the other's over the second; its expectation is `<μ_i, μ_j>`, for `i = j` as well. The
ratio has a bias of order `1/M`, which the jackknife over batches removes up to order `1/M²`, and which gives the
standard errors.

Source: the U-statistic is Hoeffding's (1948), the jackknife Quenouille's (1956) and Tukey's (1958). The correction for
attenuation by unreliable measurements is Spearman's (1904).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Products:
    """Inner products of the gradients of tasks, in one or more places; those of several places add.

    Attributes:
        between: `Σ_{m≠n} <g_im, g_jn>`, shape `(..., tasks, tasks)`.
        by_batch: `Σ_{n≠m} <g_im, g_jn>` for every batch, shape `(..., batches, tasks, tasks)`; may be estimates.
        squares: `|Σ_m g_im|²`, shape `(..., tasks)`.
    """

    between: Floats
    by_batch: Floats
    squares: Floats

    def __add__(self, other: Products) -> Products:
        return Products(
            self.between + other.between, self.by_batch + other.by_batch, self.squares + other.squares
        )

    @property
    def batches(self) -> int:
        """Number of batches."""
        return int(self.by_batch.shape[-3])

    @classmethod
    def of(cls, gradients: Floats) -> Products:
        """The products of gradients at hand.

        Args:
            gradients: Shape `(..., batches, tasks, parameters)`.
        """
        total = gradients.sum(axis=-3, keepdims=True)
        whole = np.einsum("...mip,...mjp->...mij", gradients, np.broadcast_to(total, gradients.shape))
        by_batch = whole - np.einsum("...mip,...mjp->...mij", gradients, gradients)
        return cls(by_batch.sum(axis=-3), by_batch, (total[..., 0, :, :] ** 2).sum(axis=-1))


@dataclass(frozen=True)
class Agreement:
    """How far tasks agree.

    Attributes:
        cosine: Corrected cosine of every pair, shape `(..., tasks, tasks)`; NaN where a task's gradient cannot be
            told from noise.
        error: Its standard error.
        strength: `U_ii`, the squared norm of the mean gradient without noise, shape `(..., tasks)`.
        strength_error: Its standard error.
        ceiling: Agreement of a task with itself, which is the plain cosine that two independent means of as many
            batches are expected to have, shape `(..., tasks)`: `U_ii / |mean gradient|²`.
    """

    cosine: Floats
    error: Floats
    strength: Floats
    strength_error: Floats
    ceiling: Floats


def agreement(products: Products) -> Agreement:
    """Corrected cosines with their standard errors, from products of at least 4 batches; see the formula above."""
    count = products.batches
    inner = products.between / (count * (count - 1))
    without = products.by_batch + np.swapaxes(products.by_batch, -1, -2)
    total = products.by_batch.sum(axis=-3)
    left_out = (total[..., None, :, :] - without) / ((count - 1) * (count - 2))
    whole, parts = _cosine(inner), _cosine(left_out)
    # Where products are estimates, bias and errors are taken from these alone.
    estimate = _cosine(total / (count * (count - 1)))
    cosine = whole - (count - 1) * (parts.mean(axis=-3) - estimate)
    strength = np.diagonal(inner, axis1=-2, axis2=-1)
    same = np.eye(inner.shape[-1], dtype=bool) & ~np.isnan(whole)
    plain = products.squares / count**2
    return Agreement(
        cosine=np.where(same, 1.0, cosine),
        error=np.where(same, 0.0, _jackknife_error(parts)),
        strength=strength,
        strength_error=_jackknife_error(np.diagonal(left_out, axis1=-2, axis2=-1), axis=-2),
        ceiling=np.clip(strength / np.where(plain > 0, plain, np.inf), 0.0, 1.0),
    )


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Mean over the first axis, and its standard error."""
    count = values.shape[0]
    if count < 2:
        return values.mean(axis=0), np.full(values.shape[1:], np.inf)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(count)


def _cosine(inner: Floats) -> Floats:
    strength = np.diagonal(inner, axis1=-2, axis2=-1)
    length = np.sqrt(np.where(strength > 0, strength, np.nan))
    found: Floats = inner / (length[..., :, None] * length[..., None, :])
    return found


def _jackknife_error(parts: Floats, axis: int = -3) -> Floats:
    count = parts.shape[axis]
    found: Floats = np.sqrt((count - 1) * parts.var(axis=axis))
    return found
