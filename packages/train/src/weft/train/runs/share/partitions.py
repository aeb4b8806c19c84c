"""Partitions of tasks into groups, and the one of each number of groups that keeps the most agreement."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from weft.train.runs.share.agreement import Floats

Partition = tuple[tuple[int, ...], ...]
EXACT = 8  # tasks; their 4,140 partitions are all looked at


def partitions(count: int) -> Iterator[Partition]:
    """Every partition of so many tasks.

    >>> sum(1 for _ in partitions(4))
    15
    """

    def extended(groups: tuple[tuple[int, ...], ...], task: int) -> Iterator[Partition]:
        if task == count:
            yield groups
            return
        for place, group in enumerate(groups):
            yield from extended((*groups[:place], (*group, task), *groups[place + 1 :]), task + 1)
        yield from extended((*groups, (task,)), task + 1)

    yield from extended((), 0)


def kept(partition: Partition, worth: Floats) -> float:
    """Sum of what pairs are worth that share in a partition.

    Args:
        partition: Groups of tasks.
        worth: What each pair is worth if it shares, shape `(tasks, tasks)`; negative where it conflicts.
    """
    pairs = (pair for group in partition for pair in itertools.combinations(group, 2))
    return float(sum(worth[pair] for pair in pairs))


def best_by_groups(worth: Floats, exact: int = EXACT) -> dict[int, tuple[float, Partition]]:
    """Number of groups to the partition that keeps the most, and what it keeps.

    All partitions are compared for up to `exact` tasks. For more, groups are merged one by one from single tasks on,
    those first whose pairs are worth most together, which need not be the best.

    Args:
        worth: As for `kept`.
        exact: Maximum number of tasks whose partitions are all compared.
    """
    count = worth.shape[0]
    candidates = partitions(count) if count <= exact else _merged(worth)
    best: dict[int, tuple[float, Partition]] = {}
    for partition in candidates:
        value = kept(partition, worth)
        known = best.get(len(partition))
        if known is None or value > known[0] + 1e-12:
            best[len(partition)] = value, partition
    return best


def _merged(worth: Floats) -> Iterator[Partition]:
    groups: list[tuple[int, ...]] = [(task,) for task in range(worth.shape[0])]
    yield tuple(groups)
    while len(groups) > 1:
        pairs = list(itertools.combinations(range(len(groups)), 2))
        gains = [worth[np.ix_(groups[one], groups[other])].sum() for one, other in pairs]
        one, other = pairs[int(np.argmax(gains))]
        joined = tuple(sorted(groups[one] + groups[other]))
        groups = [group for place, group in enumerate(groups) if place not in (one, other)] + [joined]
        yield tuple(sorted(groups))
