"""Draw batches from several tasks: index-based, resumable at any step, the same on every world size.

Nothing is stored but (epoch, step): the batch at a step is a pure function of (seed, epoch, step). Rows come
from keyed permutations (`permutation.py`), so no buffer, no replay and no memory in the number of rows.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InvalidArgumentError, StateMismatchError, require_known
from weft.data.sampling.permutation import permute
from weft.data.sampling.quotas import LastBatch, Strategy, draws_per_epoch, task_weights

Unit = Literal["homogeneous", "mixed"]
Key = tuple[str, int]
_SCHEDULE_BLOCK = 1024


class TaskMixture:
    """A batch sampler over several tasks; usable as `batch_sampler` of a torch `DataLoader`.

    One epoch holds a fixed number of rows (or batches) of each task, in an order reshuffled every epoch.
    With strategy "proportional" and no caps every row of every task comes exactly once per epoch. Otherwise
    each task is an endless stream of passes over its rows, continued from epoch to epoch, so that every row
    comes equally often in the long run.

    Args:
        sizes: Task name to its number of rows; the order of tasks is kept.
        strategy: "proportional" (rate ∝ rows), "temperature" (rate ∝ rows^(1/T)), "round_robin" (tasks take
            turns), or "weights".
        temperature: T of "temperature"; 1 is proportional, large values are uniform.
        weights: Task to non-negative weight, for "weights".
        caps: Task to the greatest number of rows that counts for its rate (one number caps every task).
        batch_size: Rows of one global batch, summed over ranks; one number, or one per task for
            homogeneous batches.
        unit: "homogeneous" batches hold one task each; "mixed" batches hold rows of several tasks.
        seed: Seed of all shuffling.
        steps_per_epoch: Batches per epoch; by default as many as one pass over all (capped) rows takes.
            "round_robin" rounds it up to whole turns.
        last: What becomes of rows that do not fill a batch: a "short" batch, "drop" them this epoch, or
            "fill" the batch from the task's next pass. Only "proportional" without caps asks this.
        shuffle: False keeps the rows of each task in order (tasks are still interleaved).
        rank: This process.
        world_size: Number of processes; each takes every `world_size`-th row of the global batch.

    Raises:
        InvalidArgumentError: For arguments outside these rules.

    >>> mixture = TaskMixture({"vqa": 6, "nlvr": 4}, batch_size=2, seed=0)
    >>> len(mixture), sorted(row for batch in mixture for row in batch)[:3]
    (5, [('nlvr', 0), ('nlvr', 1), ('nlvr', 2)])
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        strategy: Strategy = "proportional",
        temperature: float = 1.0,
        weights: Mapping[str, float] | None = None,
        caps: Mapping[str, int] | int | None = None,
        batch_size: int | Mapping[str, int] = 32,
        unit: Unit = "homogeneous",
        seed: int = 0,
        *,
        steps_per_epoch: int | None = None,
        last: LastBatch = "short",
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        require_known("unit", ("homogeneous", "mixed"), unit)
        if not 0 <= rank < world_size:
            raise InvalidArgumentError(
                f"`rank` must lie in 0..{world_size - 1} (world_size - 1), but is {rank}."
            )
        self.sizes = dict(sizes)
        self.tasks = tuple(self.sizes)
        self.unit, self.seed, self.shuffle = unit, seed, shuffle
        self.strategy, self.rank, self.world_size = strategy, rank, world_size
        self.batch_sizes = _batch_sizes(self.tasks, batch_size, unit)
        rates = task_weights(self.sizes, strategy, temperature, weights, caps)
        self._draws, self._steps = draws_per_epoch(
            self.sizes,
            rates,
            self.batch_sizes,
            strategy=strategy,
            mixed=unit == "mixed",
            caps=caps,
            steps=steps_per_epoch,
            last=last,
        )
        self._check_ranks()
        order = [self.sizes, strategy, unit, seed, shuffle]
        self._config = [*order, self.batch_sizes, self._draws, self._steps, last]
        counts = [-(-self._draws[task] // self.batch_sizes[task]) for task in self.tasks]
        self._batches = np.array(counts)
        self._batch_bounds = np.cumsum(counts)
        self._schedules: dict[tuple[int, int], NDArray[np.int64]] = {}
        self.epoch = 0
        self.step = 0

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return self._steps

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch, the same on every rank."""
        return self._steps

    @property
    def rows_per_epoch(self) -> dict[str, int]:
        """Rows drawn from each task in one epoch, over all ranks."""
        return dict(self._draws)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this rank's batches from the present step to the end of the epoch, then begin the next."""
        while self.step < self._steps:
            batch = self.batch(self.step)
            self.step += 1
            yield batch
        self.epoch, self.step = self.epoch + 1, 0

    def batch(self, step: int, epoch: int | None = None) -> list[Key]:
        """Return this rank's share of the batch at `step`, as (task, row) pairs.

        Args:
            step: 0 to `steps_per_epoch` - 1.
            epoch: By default the present epoch.

        Raises:
            InvalidArgumentError: If the step is outside the epoch.
        """
        return self.global_batch(step, epoch)[self.rank :: self.world_size]

    def global_batch(self, step: int, epoch: int | None = None) -> list[Key]:
        """Return the whole batch at `step`, over all ranks, as (task, row) pairs."""
        if not 0 <= step < self._steps:
            raise InvalidArgumentError(f"`step` must lie in 0..{self._steps - 1}, but is {step}.")
        epoch = self.epoch if epoch is None else epoch
        return self._mixed(step, epoch) if self.unit == "mixed" else self._homogeneous(step, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Begin `epoch` at its first step; the present epoch keeps its step."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """Return the position of the sampler, in a few hundred bytes of plain JSON values.

        Args:
            consumed: Batches of this epoch that the training really used. A loader with workers asks for
                batches ahead of time; give this number so that those are drawn again. By default all
                batches handed out count as used.
        """
        step = self.step if consumed is None else consumed
        epoch, step = self.epoch + step // self._steps, step % self._steps
        return {"version": 1, "epoch": epoch, "step": step, "seed": self.seed, "mixture": self.fingerprint()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` stood; the world size may have changed since.

        Raises:
            StateMismatchError: If the state belongs to another mixture.
        """
        if state.get("version") != 1 or state.get("mixture") != self.fingerprint():
            raise StateMismatchError(
                "`state` must come from a mixture with the same sizes, strategy, batch sizes and seed, but belongs to "
                f"{state.get('mixture')!r} and this is {self.fingerprint()!r}. Restore the old settings, or start over."
            )
        self.epoch, self.step = int(state["epoch"]), int(state["step"])

    def fingerprint(self) -> str:
        """Return a short hash of everything that fixes the global sequence; ranks do not matter."""
        return hashlib.sha256(json.dumps(self._config).encode()).hexdigest()[:16]

    def _homogeneous(self, step: int, epoch: int) -> list[Key]:
        if self.strategy == "round_robin":
            turn, slot = divmod(step, len(self.tasks))
            task, number = self.tasks[slot], turn
        else:
            slot = self._slot(step, epoch)
            index = int(np.searchsorted(self._batch_bounds, slot, side="right"))
            task, number = self.tasks[index], slot - int(self._batch_bounds[index] - self._batches[index])
        size = self.batch_sizes[task]
        stop = min((number + 1) * size, self._draws[task])
        rows = self._rows(task, np.arange(number * size, stop), epoch)
        return [(task, row) for row in rows.tolist()]

    def _slot(self, step: int, epoch: int) -> int:
        """Return where `step` goes in the shuffled order of batches; computed for many steps at a time."""
        block = step // _SCHEDULE_BLOCK
        if (epoch, block) not in self._schedules:
            first = block * _SCHEDULE_BLOCK
            steps = np.arange(first, min(first + _SCHEDULE_BLOCK, self._steps))
            self._schedules = {(epoch, block): permute(steps, self._steps, (self.seed, "schedule", epoch))}
        return int(self._schedules[(epoch, block)][step % _SCHEDULE_BLOCK])

    def _mixed(self, step: int, epoch: int) -> list[Key]:
        size, total = self.batch_sizes[self.tasks[0]], sum(self._draws.values())
        positions = np.arange(step * size, min((step + 1) * size, total))
        if self.strategy == "round_robin":
            which, numbers = positions % len(self.tasks), positions // len(self.tasks)
        else:
            slots = permute(positions, total, (self.seed, "schedule", epoch))
            draws = np.array([self._draws[task] for task in self.tasks])
            bounds = np.cumsum(draws)
            which = np.searchsorted(bounds, slots, side="right")
            numbers = slots - (bounds - draws)[which]
        rows = np.empty(len(positions), dtype=np.int64)
        for index, task in enumerate(self.tasks):
            chosen = which == index
            if chosen.any():
                rows[chosen] = self._rows(task, numbers[chosen], epoch)
        return [(self.tasks[index], row) for index, row in zip(which.tolist(), rows.tolist(), strict=True)]

    def _rows(self, task: str, numbers: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return the rows of draws `numbers` of this epoch in the task's endless stream of passes."""
        size = self.sizes[task]
        passes, positions = np.divmod(numbers + epoch * self._draws[task], size)
        if not self.shuffle:
            return np.asarray(positions)
        rows = np.empty_like(positions)
        for number in np.unique(passes):
            chosen = passes == number
            rows[chosen] = permute(positions[chosen], size, (self.seed, task, int(number)))
        return rows

    def _check_ranks(self) -> None:
        for task in self.tasks:
            size = self.batch_sizes[task]
            if size % self.world_size:
                raise InvalidArgumentError(
                    f"`batch_size` must be a multiple of world_size ({self.world_size}), but is {size} for "
                    f"task {task!r}. It counts the rows of all ranks together."
                )
        total = sum(self._draws.values()) if self.unit == "mixed" else None
        for task in self.tasks:
            rest = (self._draws[task] if total is None else total) % self.batch_sizes[task]
            if 0 < rest < self.world_size:
                raise InvalidArgumentError(
                    f"`last` must be 'drop' or 'fill' here: the last batch of {task!r} has {rest} rows for "
                    f"{self.world_size} ranks, and 'short' would leave some ranks without a row."
                )


def _batch_sizes(tasks: tuple[str, ...], batch_size: int | Mapping[str, int], unit: str) -> dict[str, int]:
    if not tasks:
        raise InvalidArgumentError("`sizes` must name at least one task, but is empty.")
    if isinstance(batch_size, Mapping):
        if unit == "mixed":
            raise InvalidArgumentError("`batch_size` must be one number for mixed batches, but is a mapping.")
        for task in tasks:
            if task not in batch_size:
                raise InvalidArgumentError(f"`batch_size` must name every task, but {task!r} is missing.")
        require_known("task in `batch_size`", tasks, *batch_size)
        sizes = {task: batch_size[task] for task in tasks}
    else:
        sizes = dict.fromkeys(tasks, batch_size)
    for task, size in sizes.items():
        if size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1, but is {size} for task {task!r}.")
    return sizes
