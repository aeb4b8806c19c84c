"""Runs gathered into a table of methods by tasks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.eval.compare.row import Row, row_of
from weft.eval.errors import ComparisonError
from weft.eval.metrics.significance import PairedResult


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation over seeds.

    Attributes:
        mean: The mean.
        std: The standard deviation, or `None` with a single seed.
        n: Number of seeds.
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))

    def text(self, digits: int = 2) -> str:
        """The mean, with the deviation after `±` where there is one."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.std is None else f"{mean} ± {self.std:.{digits}f}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: all its seeds together.

    Attributes:
        method: Machine name.
        label: Name for people.
        control: Whether it is a baseline.
        scores: Task to spread; a task missing in any seed is absent.
        average: Spread of the mean over all tasks of the comparison, or `None` if a task is missing.
        percent: Trainable share of all parameters in percent.
        trainable: Trained parameters.
        seconds: Mean training time.
        memory: Highest peak memory in MB.
        seeds: The seeds, sorted.
        published: Source of a published row.
    """

    method: str
    label: str
    control: bool
    scores: Mapping[str, Spread]
    average: Spread | None
    percent: float | None
    trainable: int | None
    seconds: float | None
    memory: float | None
    seeds: tuple[int, ...]
    published: str | None

    @property
    def competes(self) -> bool:
        """Whether it is a method of ours: neither a baseline nor published by others."""
        return not self.control and self.published is None


class Comparison:
    """A table of methods by tasks.

    Args:
        rows: One per run.
        title: Shown above tables.
        marks: `(method, task)` to a mark shown after its score; see `with_marks`.
        note: What readers of the table must know, shown below it.

    Attributes:
        rows: The runs as given.
        tasks: All tasks, in order of first appearance.
        entries: One per method: methods in order of appearance, baselines after them.

    Raises:
        ComparisonError: There is no row, two rows share method and seed, or the parameter counts of one
            method differ between seeds.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        title: str = "",
        marks: Mapping[tuple[str, str], str] | None = None,
        note: str = "",
    ) -> None:
        if not rows:
            raise ComparisonError(
                "`rows` must hold at least one finished run, but is empty. Run something first."
            )
        self.rows = tuple(rows)
        self.title = title
        self.marks = dict(marks or {})
        self.note = note
        self.tasks = tuple(dict.fromkeys(task for row in rows for task in row.scores))
        by_method: dict[str, list[Row]] = {}
        for row in rows:
            by_method.setdefault(row.method, []).append(row)
        entries = [_entry(group, self.tasks) for group in by_method.values()]
        entries.sort(key=lambda entry: (entry.control, entry.published is not None))
        self.entries = tuple(entries)

    @classmethod
    def from_rows(cls, rows: Sequence[Row | Mapping[str, Any]], title: str = "") -> Comparison:
        """Build a comparison from plain data.

        Args:
            rows: `Row`s, or mappings with `method` and `scores` and any other field of `Row`.
            title: Shown above tables.

        Raises:
            ComparisonError: A row lacks a field, has an unknown one, or holds a score that is no finite
                number.

        Example:
            >>> table = Comparison.from_rows([{"method": "lora", "scores": {"vqa": 70.0}},
            ...                               {"method": "lora", "seed": 1, "scores": {"vqa": 72.0}}])
            >>> table.entries[0].scores["vqa"].mean
            71.0
        """
        return cls(
            [row if isinstance(row, Row) else row_of(place, row) for place, row in enumerate(rows)], title
        )

    @classmethod
    def from_mlflow(cls, store: Path | str | None = None, experiment: str = "weft") -> Comparison:
        """Read the finished runs of an experiment from an MLflow store.

        Args:
            store: A folder, a tracking URI, or `None` (see `weft.eval.tracking.store_uri`).
            experiment: Name of the experiment.

        Raises:
            ComparisonError: The store has no such experiment, or it has no run with test scores.
        """
        from weft.eval.compare.from_mlflow import read_rows

        return cls(read_rows(store, experiment), title=experiment)

    def with_marks(self, results: Mapping[tuple[str, str], PairedResult], against: str = "") -> Comparison:
        """The same comparison with marks of significance (`*` below 0.05, `**` below 0.01) after its scores.

        Args:
            results: What `weft.eval.compare.significance` returned.
            against: The method that the others were held against, for the note below the table.
        """
        note = f"* p < 0.05, ** p < 0.01 against {against or 'the other method'}, paired over samples"
        return Comparison(self.rows, self.title, {key: result.mark for key, result in results.items()}, note)

    def with_rows(self, rows: Sequence[Row]) -> Comparison:
        """The same comparison with further rows, such as published ones."""
        return Comparison((*self.rows, *rows), self.title, self.marks, self.note)

    def entry(self, method: str) -> Entry:
        """The entry of a method.

        Raises:
            ComparisonError: There is no such method.
        """
        known = {entry.method: entry for entry in self.entries}
        if method not in known:
            raise ComparisonError(
                f"`method` must be one of {', '.join(known)}, but is {method!r}. Choose one of these."
            )
        return known[method]

    def front(self) -> tuple[Entry, ...]:
        """Our methods that no other beats in both average and trainable share, smallest share first."""
        candidates = [
            (entry.percent, entry.average.mean, entry)
            for entry in self.entries
            if entry.competes and entry.average is not None and entry.percent is not None
        ]
        best, front = -math.inf, []
        for _, mean, entry in sorted(candidates, key=lambda one: (one[0], -one[1])):
            if mean > best:
                best = mean
                front.append(entry)
        return tuple(front)


def _entry(rows: list[Row], tasks: tuple[str, ...]) -> Entry:
    first = rows[0]
    seeds = [row.seed for row in rows]
    if len(set(seeds)) < len(seeds):
        raise ComparisonError(
            f"Runs of one method must differ in seed, but {first.method!r} has seeds {sorted(seeds)}. "
            "Delete the older run, or give one of them another method name."
        )
    counts = {(row.trainable, row.total) for row in rows}
    if len(counts) > 1:
        raise ComparisonError(
            f"Seeds of one method must train the same parameters, but {first.method!r} has counts "
            f"{sorted(counts, key=str)}. Give different configurations different method names."
        )
    shared = [task for task in tasks if all(task in row.scores for row in rows)]
    averages = [
        statistics.fmean(row.scores[task] for task in tasks) for row in rows if len(shared) == len(tasks)
    ]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    memory = [row.memory for row in rows if row.memory is not None]
    percent = first.percent
    if first.trainable is not None and first.total:
        percent = 100 * first.trainable / first.total
    return Entry(
        method=first.method,
        label=first.label or first.method,
        control=first.control,
        scores={task: Spread.of([row.scores[task] for row in rows]) for task in shared},
        average=Spread.of(averages) if averages else None,
        percent=percent,
        trainable=first.trainable,
        seconds=statistics.fmean(seconds) if seconds else None,
        memory=max(memory) if memory else None,
        seeds=tuple(sorted(seeds)),
        published=first.published,
    )
