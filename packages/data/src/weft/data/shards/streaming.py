"""Read shards in shuffled order without random access to rows: for remote stores and very large sets.

The order is a pure function of (seed, epoch): row groups are permuted, put into windows, and the rows of a
window permuted. A rank reads one contiguous stretch of that order, so it opens only its own shards. Resuming
computes the position; the rest of the window is read again, nothing is lost or doubled, and the number of
ranks may change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from weft.data.errors import InvalidArgumentError, StateMismatchError
from weft.data.records.record import Record
from weft.data.sampling.permutation import permute
from weft.data.shards.parquet import ShardedRecords

Interval = tuple[int, int]


class ShardStream:
    """An endless stream of epochs over shards for one rank.

    Args:
        records: Opened shards.
        seed: Seed of the order.
        window_groups: Row groups that are shuffled together; they are in memory at once.
        rank: This reader; readers are processes times workers.
        world_size: Number of readers.
        shuffle: False keeps file order.

    Raises:
        InvalidArgumentError: If the rank is outside the world, or the window is empty.
    """

    def __init__(
        self,
        records: ShardedRecords,
        *,
        seed: int = 0,
        window_groups: int = 16,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        if not 0 <= rank < world_size:
            raise InvalidArgumentError(
                f"`rank` must lie in 0..{world_size - 1} (world_size - 1), but is {rank}."
            )
        if window_groups < 1:
            raise InvalidArgumentError(f"`window_groups` must be at least 1, but is {window_groups}.")
        self.records, self.seed, self.window_groups = records, seed, window_groups
        self.rank, self.world_size, self.shuffle = rank, world_size, shuffle
        self.epoch = 0
        self.consumed = 0
        self._history: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Rows of this reader that remain in the epoch."""
        return sum(stop - start for start, stop in self._own()) - self.consumed

    def __iter__(self) -> Iterator[Record]:
        """Yield this reader's records to the end of the epoch; the next iteration begins the next."""
        for start, stop in _skip(self._own(), self.consumed):
            for record in self._read(start, stop):
                self.consumed += 1
                yield record
        self.epoch, self.consumed, self._history = self.epoch + 1, 0, []

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """Return the position, in plain JSON values.

        Args:
            consumed: Rows of this epoch that every reader has used since the last resume; by default those
                handed out here. Give the number that all readers agree on.
        """
        used = self.consumed if consumed is None else consumed
        history = [*map(list, self._history), [self.world_size, used]]
        return {**self._order(), "epoch": self.epoch, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` stood, with this object's rank and world size.

        Raises:
            StateMismatchError: If the state belongs to another order.
        """
        differing = [name for name, value in self._order().items() if state.get(name) != value]
        if differing:
            raise StateMismatchError(
                f"`state` must belong to the same shards, seed and window, but differs in {', '.join(differing)}. "
                "Restore the old settings, or start over."
            )
        self.epoch = int(state["epoch"])
        self._history, self.consumed = [(int(world), int(used)) for world, used in state["history"]], 0
        if self._history and self._history[-1][0] == self.world_size:
            _, self.consumed = self._history.pop()

    def _order(self) -> dict[str, int]:
        """What the order of the rows depends on, beside the epoch."""
        rows = len(self.records)
        return {"version": 1, "seed": self.seed, "window_groups": self.window_groups, "rows": rows}

    def _own(self) -> list[Interval]:
        """Return this reader's stretches of the global order, after all that was consumed before."""
        remaining: list[Interval] = [(0, len(self.records))]
        for world, used in self._history:
            remaining = [
                piece for rank in range(world) for piece in _skip(_share(remaining, rank, world), used)
            ]
        return _share(remaining, self.rank, self.world_size)

    def _read(self, start: int, stop: int) -> Iterator[Record]:
        """Yield positions start..stop-1 of the order of this epoch, window by window."""
        groups = self.records.groups()
        if self.shuffle:
            order = permute(np.arange(len(groups)), len(groups), (self.seed, "groups", self.epoch))
            groups = [groups[position] for position in order.tolist()]
        first = 0
        for window in range(0, len(groups), self.window_groups):
            members = groups[window : window + self.window_groups]
            size = sum(rows for _, _, rows in members)
            low, high = max(start, first), min(stop, first + size)
            if low < high:
                yield from self._window(members, window, size, low - first, high - first)
            first += size

    def _window(
        self, members: list[tuple[int, int, int]], window: int, size: int, low: int, high: int
    ) -> Iterator[Record]:
        loaded = [record for shard, group, _ in members for record in self.records.read_group(shard, group)]
        positions = np.arange(low, high)
        if self.shuffle:
            positions = permute(positions, size, (self.seed, "window", self.epoch, window))
        for position in positions.tolist():
            yield loaded[position]


def _share(intervals: list[Interval], rank: int, world: int) -> list[Interval]:
    """Return the part of `intervals` that belongs to `rank`: equal contiguous stretches, by total length."""
    total = sum(stop - start for start, stop in intervals)
    low, high = rank * total // world, (rank + 1) * total // world
    found, passed = [], 0
    for start, stop in intervals:
        length = stop - start
        first, last = max(low, passed), min(high, passed + length)
        if first < last:
            found.append((start + first - passed, start + last - passed))
        passed += length
    return found


def _skip(intervals: list[Interval], used: int) -> list[Interval]:
    """Return `intervals` without their first `used` rows."""
    found = []
    for start, stop in intervals:
        taken = min(used, stop - start)
        used -= taken
        if start + taken < stop:
            found.append((start + taken, stop))
    return found
