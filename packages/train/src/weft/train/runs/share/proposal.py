"""The proposal: the policy, by part, range of layers and block, that brings tasks farthest within a budget.

Let `v_i` be the mean gradient of task `i`, divided by its length over all cells. A step of a group's weights along the
gradients of all its tasks brings `Σ_{j in the group} <v_i, v_j>` to task `i`, to first order; tasks that agree bring
one another forward, those that conflict hold one another back. Separate weights cost weights: with `k` groups at equal
weights in all each group has a `k`-th of the width, and a step, which moves every weight about as far (Adam's does),
brings a `k`-th. So a place where tasks form groups is worth

    Σ_groups |Σ_{i in the group} v_i|² / k,        <v_i, v_j> = c_ij |v_i| |v_j|,

and tasks part where that is more: two equally strong ones where their cosine `c` is below -1/2. What may be noise parts
nobody: the cosine in a place is that of the wider place (all cells, the tower, the stack, the family, and so on from
there), and 0 at first, unless its own differs from that by more than `Z` standard errors; among ranges and blocks, of
which many are looked at, by more than a threshold that grows with their number, as Bonferroni's does.

In every family of cells (a part in a stack of a tower) layers are divided into at most `RANGES` ranges, either for all
blocks together or for each by itself. Each range beyond the first, and each block by itself, costs `SIMPLICITY`. For up
to 8 tasks the choice is exact: all partitions and all ranges are looked at, and of every family all choices that are
best for what they cost. Beyond, partitions are merged one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import numpy as np

from weft.train.runs.share.agreement import Agreement, Floats, Products, agreement, mean_and_error
from weft.train.runs.share.cells import Cell
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.partitions import Partition, best_by_groups, progress

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
        block: The block that they are in, if the family's blocks are told apart.
    """

    cells: tuple[Cell, ...]
    partition: Partition
    found: Agreement
    block: str = ""

    @property
    def parameters(self) -> int:
        """Trained parameters of all slots."""
        return len(self.partition) * sum(cell.parameters for cell in self.cells)


@dataclass(frozen=True)
class Proposal:
    """What is proposed.

    Attributes:
        choices: Who shares where; every cell is in one.
        progress: How far tasks go forward, see above; one with weights of its own, as wide as the method's, goes 1.
    """

    choices: tuple[Choice, ...]
    progress: float

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
    clear = [task for task, is_clear in enumerate(known.tasks) if is_clear]
    pairs = list(itertools.combinations(clear, 2))
    found = [known.whole, *map(_within, families(measured))]
    # A pair is looked at in several places; the threshold grows with their number, as Bonferroni's does.
    threshold = Z + np.sqrt(np.log(len(found)))
    return any(abs(one.cosine[pair]) > threshold * one.error[pair] for one in found for pair in pairs)


def proposals(measured: Measurement, budget: int | None = None, by: Budget = "parameters") -> list[Proposal]:
    """The policies that are best for what they cost, the one that brings tasks farthest first.

    Args:
        measured: What was measured.
        budget: Maximum cost of all cells; None sets no limit.
        by: Whether the cost is in trained parameters, or in slots, of which a cell has one for each group.

    Returns:
        None at all, where even sharing everything costs more.
    """
    front = sorted(_front(measured, budget, by), key=lambda one: (-one[1], one[0]))
    return [Proposal(choices, value) for _, value, choices in front]


def progress_of(measured: Measurement, partition: Partition) -> float:
    """`Proposal.progress` of one partition everywhere."""
    value = 0.0
    for places, scale in _scaled(measured):
        value += progress(partition, _worth(_within(places), scale))
    return value


Option = tuple[int, float, tuple[Choice, ...]]
Places = Sequence[tuple[Cell, Products]]


def _front(measured: Measurement, budget: int | None, by: Budget) -> list[Option]:
    """Options over all families that nothing beats in both weights and progress."""
    options: list[Option] = [(0, 0.0, ())]
    for places, scale in _scaled(measured, by):
        options = _unbeaten(_both(options, _family_options(places, scale)))
        if budget is not None:
            options = [option for option in options if option[0] <= budget]
    return options


def families(measured: Measurement) -> list[Places]:
    """The cells of each family with their products, in the order of layers."""
    found: dict[tuple[object, ...], list[tuple[Cell, Products]]] = {}
    for pair in zip(measured.cells, measured.products, strict=True):
        found.setdefault(pair[0].family, []).append(pair)
    return [sorted(places, key=lambda pair: pair[0].layer or 0) for places in found.values()]


def _within(places: Iterable[tuple[object, Products]]) -> Agreement:
    """Agreement in several places together."""
    return agreement(reduce(Products.__add__, (products for _, products in places)))


@dataclass(frozen=True)
class Scale:
    """What the places of a family are held against.

    Attributes:
        whole: Squared length of each task's gradient over all cells, shape `(tasks,)`.
        known: Whether each task is measurable.
        expected: Cosines of the family, shape `(tasks, tasks)`.
        by: What costs are in.
        z: Standard errors beyond which a place differs from its family.
    """

    whole: Floats
    known: Sequence[bool]
    expected: Floats
    by: Budget = "parameters"
    z: float = Z


def _scaled(measured: Measurement, by: Budget = "parameters") -> Iterator[tuple[Places, Scale]]:
    """The cells of each family with their products, and what they are held against."""
    known = measurable(measured)
    whole = np.clip(known.whole.strength, 0.0, None)
    for places in families(measured):
        yield places, Scale(whole, known.tasks, _expected(measured, places[0][0]), by)


def _expected(measured: Measurement, cell: Cell) -> Floats:
    """Cosines of the family of a cell: those of the stack, the tower and all cells, but where they differ."""
    wider: tuple[Callable[[Cell], object], ...] = (
        lambda one: None,
        lambda one: one.tower,
        lambda one: (one.tower, one.stack),
        lambda one: one.family,
    )
    cosine = np.zeros((len(measured.tasks), len(measured.tasks)))
    for place in wider:
        pairs = zip(measured.cells, measured.products, strict=True)
        found = _within(pair for pair in pairs if place(pair[0]) == place(cell))
        cosine = _unless_noise(found, cosine, Z)
    return cosine


def _unless_noise(found: Agreement, expected: Floats, z: float) -> Floats:
    """The cosines of a place where they differ from what is expected, and else these."""
    with np.errstate(invalid="ignore"):
        differ = np.abs(found.cosine - expected) > z * found.error
    return np.where(differ, np.clip(found.cosine, -1.0, 1.0), expected)


def _family_options(places: Places, scale: Scale) -> list[Option]:
    """Options of one family, with rules for all blocks together or for each."""
    layers = by_layer(places)
    blocks = dict.fromkeys(cell.block for cell, _ in places)
    looked_at = len(layers) * (len(layers) + 1) / 2 * (1 + len(blocks) * (len(blocks) > 1))
    scale = replace(scale, z=Z + np.sqrt(np.log(looked_at)))
    options = _range_options(layers, scale)
    if len(blocks) == 1:
        return options
    apart: list[Option] = [(0, -SIMPLICITY * (len(blocks) - 1), ())]
    for block in blocks:
        own = by_layer([pair for pair in places if pair[0].block == block])
        apart = _unbeaten(_both(apart, _range_options(own, scale, block)))
    # Blocks under one policy need no rules of their own, and ranges under one policy are one range.
    apart = [option for option in apart if len({choice.partition for choice in option[2]}) > 1]
    return _unbeaten([*options, *apart])


Layer = tuple[tuple[Cell, ...], Products]


def by_layer(places: Places) -> list[Layer]:
    """Cells of one family by layer, in their order, with the sum of their products."""
    found: dict[int | None, Layer] = {}
    for cell, own in places:
        known = found.get(cell.layer)
        found[cell.layer] = ((cell,), own) if known is None else ((*known[0], cell), known[1] + own)
    return list(found.values())


def _range_options(layers: Sequence[Layer], scale: Scale, block: str = "") -> list[Option]:
    """Options of layers in their order, by dynamic programming over the layer where a range begins."""
    best: list[list[Option]] = [[(0, 0.0, ())]]
    for end in range(1, len(layers) + 1):
        found: list[Option] = []
        for start in range(end):
            before = [option for option in best[start] if len(option[2]) < RANGES]
            own = _segment_options(layers[start:end], scale, block) if before else []
            lost = SIMPLICITY if start else 0.0
            found += [
                (a[0] + b[0], a[1] + b[1] - lost, a[2] + b[2])
                for a in before
                for b in own
                if not a[2] or a[2][-1].partition != b[2][0].partition
            ]
        best.append(_unbeaten(found))
    return best[-1]


def _segment_options(layers: Sequence[Layer], scale: Scale, block: str) -> list[Option]:
    cells, found = tuple(cell for own, _ in layers for cell in own), _within(layers)
    size = len(cells) if scale.by == "slots" else sum(cell.parameters for cell in cells)
    return _unbeaten(
        (groups * size, value, (Choice(cells, partition, found, block),))
        for groups, (value, partition) in best_by_groups(_worth(found, scale)).items()
    )


def _worth(found: Agreement, scale: Scale) -> Floats:
    """What a step for each task brings to each other one in a place; nothing for tasks that are not measurable."""
    known = np.asarray(scale.known) & (found.strength > 0) & (scale.whole > 0)
    length = np.sqrt(np.where(known, found.strength, 0.0) / np.where(scale.whole > 0, scale.whole, 1.0))
    cosine = _unless_noise(found, scale.expected, scale.z)
    np.fill_diagonal(cosine, 1.0)
    return cosine * np.outer(length, length)


def _both(some: Iterable[Option], others: Sequence[Option]) -> Iterator[Option]:
    """Every option of some places with every one of others."""
    return ((a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a in some for b in others)


def _unbeaten(options: Iterable[Option]) -> list[Option]:
    """Options that no other one beats: more progress for as many weights, or fewer weights for as much."""
    found: list[Option] = []
    for option in sorted(options, key=lambda one: (one[0], -one[1])):
        if not found or option[1] > found[-1][1] + 1e-12:
            found.append(option)
    return found
