"""A search over (alpha, sharpness, ratio, …) that needs one pass over the keys.

Class sums do not depend on alpha, and the ratio of two caches mixes two class sums. So the keys are read once for
all sharpness values, and everything else works on (rows, classes) matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from weft.core.few_shot.head_config import Axes, SelectBy

Bound = Literal["lowest", "highest"]
Ties = Literal["loss", "first"]
# Elements of the class sums that live at a time.
_BLOCK_ELEMENTS = 1 << 26
# Elements of the logits that are made at a time: what a processor's cache holds.
_CACHED_ELEMENTS = 1 << 18
# Rows per block; more does not make the passes faster.
_ROWS = 256
# A widened grid continues to this many times its end, in this many values of equal ratio.
_WIDER, _MORE = 4.0, 8


@dataclass(frozen=True)
class Search:
    """What a search chose.

    Attributes:
        selected: Hyper-parameter to its value.
        accuracy: Accuracy of the choice on the samples it was made by, per cent.
        evaluated: Number of combinations compared.
        tied: How many of them were equally accurate.
        samples: Number of samples they were compared on.
        at_bounds: Hyper-parameters whose value is the lowest or the highest of those compared, so that a better one may
            lie beyond.
        widened: How often the grid was widened.
    """

    selected: Mapping[str, float]
    accuracy: float
    evaluated: int = 1
    tied: int = 1
    samples: int = 0
    at_bounds: Mapping[str, Bound] = field(default_factory=dict)
    widened: int = 0


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
        candidates: Hyper-parameters that gave each class sum.
        sums_of: Rows to class sums, shape (candidates, rows, classes).
        alphas: Values of alpha.
        loops: Names of the hyper-parameters from the outermost to the innermost loop of the papers' code, where the
            order is another one than candidates and then alphas; their values ascend.
    """

    candidates: Sequence[Mapping[str, float]]
    sums_of: Callable[[slice], Tensor]
    alphas: Sequence[float]
    loops: Sequence[str] = ()


def search_grids(
    init: Tensor,
    labels: Tensor,
    axes: Axes,
    grid_of: Callable[[Axes], Grid],
    *,
    ties: Ties = "loss",
    by: SelectBy = "accuracy",
    widenings: int = 0,
) -> Search:
    """Search a grid as `search_grid` does, and at most `widenings` wider ones while an axis is best at an end.

    The axes are the hyper-parameters without natural bounds, whose values ascend; `grid_of` gives their grid.
    """
    widened = 0
    while True:
        found = search_grid(init, labels, grid_of(axes), ties=ties, by=by)
        ends = bounds(found.selected, axes)
        if not ends or widened == widenings:
            return replace(found, at_bounds=ends, widened=widened)
        axes = {name: _wider(values, ends.get(name)) for name, values in axes.items()}
        widened += 1


def search_grid(
    init: Tensor, labels: Tensor, grid: Grid, *, ties: Ties = "loss", by: SelectBy = "accuracy"
) -> Search:
    """Choose the candidate and the alpha of the best `init + alpha · sums`; `selected` holds both.

    Args:
        init: Zero-shot logits, shape (rows, classes).
        labels: Classes, int64, shape (rows,).
        grid: What is compared.
        ties: Among equally accurate combinations `loss` takes the one of least cross-entropy, `first` the one
            that the papers' code comes to first.
        by: Whether the most accurate combination is the best, or that of least cross-entropy.
    """
    candidates, alphas = grid.candidates, grid.alphas
    right, losses = tally(init, labels, grid, with_losses=by == "loss")
    if losses is not None:
        place, column = divmod(int(losses.argmin()), len(alphas))
        best, tied = int(right[place, column]), [[place, column]]
    else:
        best, tied = int(right.max()), (right == right.max()).nonzero().tolist()
        place, column = _first_or_likeliest(init, labels, grid, ties, tied)
    return Search(
        selected={**candidates[place], "alpha": alphas[column]},
        accuracy=100 * best / len(labels),
        evaluated=right.numel(),
        tied=len(tied),
        samples=len(labels),
    )


def bounds(selected: Mapping[str, float], axes: Axes) -> dict[str, Bound]:
    """The hyper-parameters whose value is at an end of its axis; a single value has no ends, and 0 is a natural one.

    >>> bounds({"alpha": 3.0, "beta": 1.0, "gamma": 0.0}, {"alpha": [1, 3], "beta": [1], "gamma": [0, 0.1]})
    {'alpha': 'highest'}
    """
    found: dict[str, Bound] = {}
    for name, values in axes.items():
        if len(values) > 1 and selected[name] == max(values):
            found[name] = "highest"
        elif len(values) > 1 and selected[name] == min(values) > 0:
            found[name] = "lowest"
    return found


def _wider(values: Sequence[float], bound: Bound | None) -> list[float]:
    """An axis with further values beyond one end."""
    ratios = [_WIDER ** (step / _MORE) for step in range(1, _MORE + 1)]
    if bound == "highest":
        return [*values, *(values[-1] * ratio for ratio in ratios)]
    return [*(values[0] / ratio for ratio in reversed(ratios)), *values] if bound == "lowest" else [*values]


def _first_or_likeliest(
    init: Tensor, labels: Tensor, grid: Grid, ties: Ties, tied: list[list[int]]
) -> list[int]:
    if ties == "loss" and len(tied) > 1:
        return tied[int(_losses(init, labels, grid, tied).argmin())]

    def in_loops(pair: list[int]) -> list[float]:
        values = {**grid.candidates[pair[0]], "alpha": grid.alphas[pair[1]]}
        return [values[name] for name in grid.loops]

    return min(tied, key=in_loops)


def tally(init: Tensor, labels: Tensor, grid: Grid, *, with_losses: bool) -> tuple[Tensor, Tensor | None]:
    """How many rows each candidate and alpha classify correctly, int64, and their summed cross-entropy."""
    candidates = len(grid.candidates)
    right = torch.zeros(candidates, len(grid.alphas), dtype=torch.int64)
    losses = torch.zeros(right.shape, dtype=torch.float64) if with_losses else None
    for rows in _blocks(init.shape[0], init.shape[1], candidates):
        sums, zero, truth = grid.sums_of(rows), init[rows], labels[rows]
        together = max(1, _CACHED_ELEMENTS // zero.numel())
        for first in range(0, candidates, together):
            part = sums[first : first + together]
            for column, alpha in enumerate(grid.alphas):
                logits = torch.add(zero, part, alpha=alpha)
                right[first : first + together, column] += (logits.argmax(-1) == truth).sum(-1).cpu()
                if losses is not None:
                    own = logits.gather(-1, truth.expand(len(part), -1)[..., None])[..., 0]
                    each = (logits.logsumexp(-1) - own).double().sum(-1)
                    losses[first : first + together, column] += each.cpu()
    return right, losses


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
