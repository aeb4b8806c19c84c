"""The proposal: the policy, by part and range of layers, that keeps the most agreement under a budget.

In every family of cells (a part in a stack of a tower) layers are divided into at most `RANGES` ranges, and in each
range tasks into groups. A pair that shares in a range is worth

    w · soft(c, z · se),    w = sqrt(U_ii U_jj) in the range / sqrt(ΣU_ii ΣU_jj) over all cells,

its corrected cosine there, shrunk towards zero by `z` standard errors, weighted by the share of both tasks' gradients
that is there. So only conflicts beyond noise separate tasks, and of equally good policies the smaller one
wins. Each range beyond the first costs `SIMPLICITY`. For up to 8 tasks the choice is exact: all partitions and
all ranges are looked at, and of every family all choices that are best for what they cost. Beyond, partitions are
merged one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from weft.train.runs.share.agreement import Agreement, Floats, Products, agreement, mean_and_error
from weft.train.runs.share.cells import Cell
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.partitions import Partition, best_by_groups

Budget = Literal["parameters", "slots"]
RANGES = 3
SIMPLICITY = 0.005
Z = 2.0


@dataclass(frozen=True)
class Choice:
    """Who shares in a range of layers of one family.

    Attributes:
        cells: Its cells, in the order of layers.
        partition: Groups of tasks.
        found: Agreement in these cells together.
    """

    cells: tuple[Cell, ...]
    partition: Partition
    found: Agreement

    @property
    def parameters(self) -> int:
        """Trained parameters of all slots."""
        return len(self.partition) * sum(cell.parameters for cell in self.cells)


@dataclass(frozen=True)
class Proposal:
    """What is proposed.

    Attributes:
        choices: Who shares where; every cell is in one.
        kept: What all sharing pairs are worth.
    """

    choices: tuple[Choice, ...]
    kept: float

    @property
    def parameters(self) -> int:
        """Trained parameters of all cells."""
        return sum(choice.parameters for choice in self.choices)


@dataclass(frozen=True)
class Measurable:
    """Which tasks can be measured, and how they agree over all weights.

    Attributes:
        whole: Agreement over all cells together.
        affinity: Mean lookahead affinity, shape `(tasks, tasks)`.
        affinity_error: Its standard error.
        tasks: Whether each has a gradient beyond noise, and a step along it lowers its own loss.
    """

    whole: Agreement
    affinity: Floats
    affinity_error: Floats
    tasks: tuple[bool, ...]


def measurable(measured: Measurement) -> Measurable:
    """Which tasks can be measured.

    A task must have a mean gradient that is not zero by more than `Z` standard errors and, where the measurement looked
    ahead, a step along it must lower the task's loss on other rows by more than `Z` standard errors.
    """
    whole = agreement(reduce(Products.__add__, measured.products))
    clear = whole.strength > Z * whole.strength_error
    count = len(measured.tasks)
    if len(measured.affinity) < 2:
        unknown = np.full((count, count), np.nan)
        return Measurable(whole, unknown, unknown, tuple(map(bool, clear)))
    mean, error = mean_and_error(measured.affinity)
    lowers = np.diagonal(mean) > Z * np.diagonal(error)
    return Measurable(whole, mean, error, tuple(map(bool, clear & lowers)))


def can_be_said(measured: Measurement) -> bool:
    """Whether any pair of tasks that are measurable agrees or conflicts somewhere, by more than noise."""
    known = measurable(measured)
    pairs = [
        pair
        for pair in itertools.combinations(range(len(measured.tasks)), 2)
        if all(known.tasks[i] for i in pair)
    ]
    found = [known.whole, *(agreement(products) for products in _by_family(measured))]
    # A pair is looked at in several places; the threshold grows with their number, as Bonferroni's does.
    threshold = Z + np.sqrt(np.log(max(len(found), 1)))
    return any(abs(one.cosine[pair]) > threshold * one.error[pair] for one in found for pair in pairs)


def proposals(measured: Measurement, budget: int | None = None, by: Budget = "parameters") -> list[Proposal]:
    """The policies that are best for what they cost, the one that keeps most agreement first.

    Args:
        measured: What was measured.
        budget: Maximum cost of all cells; None sets no limit.
        by: Whether the cost is in trained parameters, or in slots, of which a cell has one for each group.

    Returns:
        None at all, where even sharing everything costs more.
    """
    front = sorted(_front(measured, budget, by), key=lambda one: (-one[1], one[0]))
    return [Proposal(choices, value) for _, value, choices in front]


Option = tuple[int, float, tuple[Choice, ...]]


def _front(measured: Measurement, budget: int | None, by: Budget) -> list[Option]:
    """Options over all families that nothing beats in both weights and agreement."""
    known = measurable(measured)
    strength = np.clip(known.whole.strength, 0.0, None)
    scale = np.sqrt(np.outer(strength, strength))
    options: list[Option] = [(0, 0.0, ())]
    for cells, products in _families(measured):
        own = _family_options(cells, products, scale, known.tasks, by)
        options = _unbeaten((a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a in options for b in own)
        if budget is not None:
            options = [option for option in options if option[0] <= budget]
    return options


def _families(measured: Measurement) -> list[tuple[list[Cell], list[Products]]]:
    found: dict[tuple[object, ...], tuple[list[Cell], list[Products]]] = {}
    for cell, products in zip(measured.cells, measured.products, strict=True):
        cells, own = found.setdefault(cell.family, ([], []))
        cells.append(cell)
        own.append(products)
    ordered = []
    for cells, own in found.values():
        order = sorted(range(len(cells)), key=lambda place: cells[place].layer or 0)
        ordered.append(([cells[place] for place in order], [own[place] for place in order]))
    return ordered


def _by_family(measured: Measurement) -> list[Products]:
    return [reduce(Products.__add__, products) for _, products in _families(measured)]


def _family_options(
    cells: Sequence[Cell], products: Sequence[Products], scale: Floats, known: Sequence[bool], by: Budget
) -> list[Option]:
    """Options of one family, by dynamic programming over the layer where a range begins."""
    best: list[list[Option]] = [[(0, 0.0, ())]]
    for end in range(1, len(cells) + 1):
        found: list[Option] = []
        for start in range(end):
            before = [option for option in best[start] if len(option[2]) < RANGES]
            own = _segment_options(cells[start:end], products[start:end], scale, known, by) if before else []
            lost = SIMPLICITY if start else 0.0
            found += [(a[0] + b[0], a[1] + b[1] - lost, a[2] + b[2]) for a in before for b in own]
        best.append(_unbeaten(found))
    return best[-1]


def _segment_options(
    cells: Sequence[Cell], products: Sequence[Products], scale: Floats, known: Sequence[bool], by: Budget
) -> list[Option]:
    found = agreement(reduce(Products.__add__, products))
    worth = _worth(found, scale, known)
    size = len(cells) if by == "slots" else sum(cell.parameters for cell in cells)
    return _unbeaten(
        (groups * size, value, (Choice(tuple(cells), partition, found),))
        for groups, (value, partition) in best_by_groups(worth).items()
    )


def _worth(found: Agreement, scale: Floats, known: Sequence[bool]) -> Floats:
    strength = np.clip(found.strength, 0.0, None)
    weight = np.sqrt(np.outer(strength, strength)) / np.where(scale > 0, scale, np.inf)
    soft = np.sign(found.cosine) * np.clip(np.abs(found.cosine) - Z * found.error, 0.0, None)
    clear = np.outer(known, known)
    return np.where(clear, np.nan_to_num(weight * np.clip(soft, -1.0, 1.0)), 0.0)


def _unbeaten(options: object) -> list[Option]:
    """Options that no other one beats: more agreement for as many weights, or fewer weights for as much."""
    ordered = sorted(options, key=lambda one: (one[0], -one[1]))  # type: ignore[call-overload]
    found: list[Option] = []
    for option in ordered:
        if not found or option[1] > found[-1][1] + 1e-12:
            found.append(option)
    return found
