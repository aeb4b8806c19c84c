"""A search over (alpha, sharpness, ratio, …) that needs one pass over the keys.

Class sums do not depend on alpha, and the ratio of two caches mixes two class sums. So the keys are read once for
all sharpness values, and everything else works on (rows, classes) matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Ties = Literal["loss", "first"]
# Elements of the class sums that live at a time.
_BLOCK_ELEMENTS = 1 << 26
# Elements of the logits that are made at a time: what a processor's cache holds.
_CACHED_ELEMENTS = 1 << 18
# Rows per block; more does not make the passes faster.
_ROWS = 256


@dataclass(frozen=True)
class Search:
    """What a search chose.

    Attributes:
        selected: Hyper-parameter to its value.
        accuracy: Accuracy of the choice on the samples it was made by, per cent.
        evaluated: Number of combinations compared.
        tied: How many of them were equally accurate.
        samples: Number of samples they were compared on.
    """

    selected: Mapping[str, float]
    accuracy: float
    evaluated: int = 1
    tied: int = 1
    samples: int = 0


def steps(scale: float, count: int) -> list[float]:
    """`count` values from 0.1 on, below `scale`, as Tip-Adapter spaces them.

    >>> [round(value, 2) for value in steps(7, 3)]
    [0.1, 2.4, 4.7]

    Source: the grid of Tip-Adapter's code: `0.1 + i (scale - 0.1) / count`.
    """
    return [0.1 + index * (scale - 0.1) / count for index in range(count)]


@dataclass(frozen=True)
class Grid:
    """What a search compares: `init + alpha · sums` for every candidate and alpha.

    Attributes:
        candidates: Hyper-parameters behind each class sum.
        sums_of: Rows to class sums, shape (candidates, rows, classes).
        alphas: Values of alpha.
        loops: Names of the hyper-parameters from the outermost to the innermost loop of the papers' code, where the
            order is another one than candidates and then alphas; their values ascend.
    """

    candidates: Sequence[Mapping[str, float]]
    sums_of: Callable[[slice], Tensor]
    alphas: Sequence[float]
    loops: Sequence[str] = ()


def search_grid(init: Tensor, labels: Tensor, grid: Grid, *, ties: Ties = "loss") -> Search:
    """Choose the candidate and the alpha of the most accurate `init + alpha · sums`.

    Args:
        init: Zero-shot logits, shape (rows, classes).
        labels: Classes, int64, shape (rows,).
        grid: What is compared.
        ties: Among equally accurate combinations `loss` takes the one of least cross-entropy, `first` the one
            that the papers' code comes to first.

    Returns:
        The choice; `selected` also holds `alpha`.
    """
    candidates, alphas = grid.candidates, grid.alphas
    right = count_right(init, labels, grid)
    best = int(right.max())
    tied = (right == best).nonzero().tolist()
    place, column = tied[0]
    if grid.loops:
        place, column = min(
            tied,
            key=lambda pair: [{**candidates[pair[0]], "alpha": alphas[pair[1]]}[name] for name in grid.loops],
        )
    if ties == "loss" and len(tied) > 1:
        losses = _losses(init, labels, grid, tied)
        place, column = tied[int(losses.argmin())]
    return Search(
        selected={**candidates[place], "alpha": alphas[column]},
        accuracy=100 * best / len(labels),
        evaluated=right.numel(),
        tied=len(tied),
        samples=len(labels),
    )


def count_right(init: Tensor, labels: Tensor, grid: Grid) -> Tensor:
    """How many rows each candidate and alpha classify rightly; see `search_grid`.

    Args:
        init: Zero-shot logits, shape (rows, classes).
        labels: Classes, int64, shape (rows,).
        grid: What is compared.

    Returns:
        Int64, shape (candidates, alphas).
    """
    candidates = len(grid.candidates)
    right = torch.zeros(candidates, len(grid.alphas), dtype=torch.int64)
    for rows in _blocks(init.shape[0], init.shape[1], candidates):
        sums, zero, truth = grid.sums_of(rows), init[rows], labels[rows]
        together = max(1, _CACHED_ELEMENTS // zero.numel())
        for first in range(0, candidates, together):
            part = sums[first : first + together]
            for column, alpha in enumerate(grid.alphas):
                predicted = torch.add(zero, part, alpha=alpha).argmax(-1)
                right[first : first + together, column] += (predicted == truth).sum(-1).cpu()
    return right


def _losses(init: Tensor, labels: Tensor, grid: Grid, tied: list[list[int]]) -> Tensor:
    losses = torch.zeros(len(tied), dtype=torch.float64)
    for rows in _blocks(init.shape[0], init.shape[1], len(grid.candidates)):
        sums = grid.sums_of(rows)
        for number, (place, column) in enumerate(tied):
            logits = torch.add(init[rows], sums[place], alpha=grid.alphas[column])
            losses[number] += float(functional.cross_entropy(logits, labels[rows], reduction="sum"))
    return losses


def _blocks(rows: int, classes: int, candidates: int) -> list[slice]:
    size = max(1, min(_ROWS, _BLOCK_ELEMENTS // max(1, classes * candidates)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
