"""Partitions of tasks into groups, and the one of each number of groups in which tasks go forward farthest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from weft.train.runs.share.agreement import Floats

Partition = tuple[tuple[int, ...], ...]
EXACT = 8  # tasks; their 4,140 partitions are all looked at


def partitions(count: int) -> Iterator[Partition]:
    """Every partition of so many tasks.

    >>> sum(1 for _ in partitions(4))
    15
    """

    def extended(groups: Partition, task: int) -> Iterator[Partition]:
        if task == count:
            yield groups
            return
        for place, group in enumerate(groups):
            yield from extended((*groups[:place], (*group, task), *groups[place + 1 :]), task + 1)
        yield from extended((*groups, (task,)), task + 1)

    yield from extended((), 0)


def progress(partition: Partition, worth: Floats) -> float:
    """How far tasks go forward in a partition at equal weights in all: `Σ_groups Σ_{i, j in it} worth_ij / groups`.

    Args:
        partition: Groups of tasks.
        worth: What a step for task `j` brings to task `i`, shape `(tasks, tasks)`; negative where they conflict.
    """
    together = sum(float(worth[np.ix_(group, group)].sum()) for group in partition)
    return together / len(partition)


def best_by_groups(worth: Floats) -> dict[int, tuple[float, Partition]]:
    """Number of groups to the partition in which tasks go forward farthest, and how far, with `worth` as in `progress`.

    All partitions are looked at for up to `EXACT` tasks. For more, groups are merged one by one from single tasks on,
    those first that are best together, which need not be the best.
    """
    count = len(worth)
    if count > EXACT:
        return {len(partition): (progress(partition, worth), partition) for partition in _merged(worth)}
    every, together, groups = _all(count)
    values = np.einsum("pij,ij->p", together, worth) / groups
    best: dict[int, tuple[float, Partition]] = {}
    for partition, value in zip(every, values.tolist(), strict=True):
        known = best.get(len(partition))
        if known is None or value > known[0] + 1e-12:
            best[len(partition)] = value, partition
    return best


@cache
def _all(count: int) -> tuple[tuple[Partition, ...], NDArray[np.bool_], NDArray[np.int_]]:
    """Every partition, who is together in it, and its number of groups."""
    every = tuple(partitions(count))
    together = np.zeros((len(every), count, count), dtype=bool)
    for place, partition in enumerate(every):
        for group in partition:
            together[place][np.ix_(group, group)] = True
    return every, together, np.array([len(partition) for partition in every])


def _merged(worth: Floats) -> Iterator[Partition]:
    groups: Partition = tuple((task,) for task in range(len(worth)))
    yield groups
    while len(groups) > 1:
        groups = max(_with_two_merged(groups), key=lambda one: progress(one, worth))
        yield groups


def _with_two_merged(groups: Partition) -> Iterator[Partition]:
    for one, other in itertools.combinations(groups, 2):
        left = [group for group in groups if group not in (one, other)]
        yield tuple(sorted([*left, tuple(sorted(one + other))]))
