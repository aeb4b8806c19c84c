"""Runs gathered into a table of methods by tasks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.eval.errors import ComparisonError, shown
from weft.eval.metrics.significance import PairedResult

_REQUIRED = ("method", "scores")
_OPTIONAL = {
    "label",
    "seed",
    "trainable",
    "total",
    "seconds",
    "memory",
    "control",
    "run_id",
    "published",
    "percent",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        method: Machine name of the method; runs that share it are seeds of one entry.
        scores: Task to headline score, 0..100.
        label: Name for people.
        seed: Random seed.
        trainable: Trained parameters.
        total: All parameters of the model, trained ones included.
        seconds: Training time.
        memory: Peak memory in MB.
        control: A baseline such as majority or image-zeroed, which is listed apart and kept off fronts.
        run_id: Id of the run in its MLflow store.
        published: Where a number was printed and how sure it is, when it is not from a run of ours.
        percent: Trainable share in percent, where it is known without the counts.
    """

    method: str
    scores: Mapping[str, float]
    label: str = ""
    seed: int = 0
    trainable: int | None = None
    total: int | None = None
    seconds: float | None = None
    memory: float | None = None
    control: bool = False
    run_id: str | None = None
    published: str | None = None
    percent: float | None = None


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
        return cls(
            statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
        )

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
        self.entries = tuple(sorted(entries, key=_baselines_last))

    @classmethod
    def from_rows(cls, rows: Sequence[Row | Mapping[str, Any]], title: str = "") -> Comparison:
        """Build a comparison from plain data.

        Args:
            rows: `Row`s, or mappings with `method` and `scores` and any other field of `Row`.
            title: Shown above tables.

        Returns:
            The comparison.

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
            [row if isinstance(row, Row) else _row(place, row) for place, row in enumerate(rows)], title
        )

    @classmethod
    def from_mlflow(cls, store: Path | str | None = None, experiment: str = "weft") -> Comparison:
        """Read the finished runs of an experiment from an MLflow store.

        Args:
            store: A folder, a tracking URI, or `None` (see `weft.eval.tracking.store_uri`).
            experiment: Name of the experiment.

        Returns:
            The comparison of its runs that carry test scores.

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

        Returns:
            A new comparison.
        """
        note = f"* p < 0.05, ** p < 0.01 against {against or 'the other method'}, paired over samples"
        return Comparison(self.rows, self.title, {key: result.mark for key, result in results.items()}, note)

    def with_rows(self, rows: Sequence[Row]) -> Comparison:
        """The same comparison with further rows, such as published ones.

        Args:
            rows: The rows, for instance from `rows_from_csv`.

        Returns:
            A new comparison.
        """
        return Comparison((*self.rows, *rows), self.title, self.marks, self.note)

    def entry(self, method: str) -> Entry:
        """The entry of a method.

        Raises:
            ComparisonError: There is no such method.
        """
        for entry in self.entries:
            if entry.method == method:
                return entry
        raise ComparisonError(
            f"`method` must be one of {', '.join(entry.method for entry in self.entries)}, but is {method!r}. "
            "Choose one of these."
        )

    def front(self) -> tuple[Entry, ...]:
        """Our methods that no other beats in both average and trainable share, smallest share first."""
        candidates = [
            entry
            for entry in self.entries
            if entry.average is not None
            and entry.percent is not None
            and not entry.control
            and entry.published is None
        ]
        candidates.sort(
            key=lambda entry: (entry.percent or 0.0, -(entry.average.mean if entry.average else 0.0))
        )
        best, front = -math.inf, []
        for entry in candidates:
            if entry.average is not None and entry.average.mean > best:
                best = entry.average.mean
                front.append(entry)
        return tuple(front)


def _row(place: int, data: Mapping[str, Any]) -> Row:
    absent = [name for name in _REQUIRED if name not in data]
    unknown = [name for name in data if name not in _OPTIONAL and name not in _REQUIRED]
    if absent or unknown:
        raise ComparisonError(
            f"A row must have `method` and `scores` and may have {', '.join(sorted(_OPTIONAL))}, but row {place} "
            f"lacks {shown(list(absent)) or 'nothing'} and has {shown(list(unknown)) or 'nothing'} unknown. "
            f"Rename them."
        )
    wrong = [task for task, score in data["scores"].items() if not _is_score(score)]
    if wrong:
        raise ComparisonError(
            f"A score must be a finite number, but row {place} ({data['method']}) has others for {shown(wrong)}. "
            "Leave a task out that was not scored."
        )
    return Row(**{**data, "scores": dict(data["scores"]), "label": data.get("label") or data["method"]})


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
            f"{sorted(counts, key=str)}. "
            "Give different configurations different method names."
        )
    shared = [task for task in tasks if all(task in row.scores for row in rows)]
    averages = (
        [statistics.fmean(row.scores[task] for task in tasks) for row in rows]
        if len(shared) == len(tasks)
        else []
    )
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


def _baselines_last(entry: Entry) -> tuple[bool, bool]:
    return entry.control, entry.published is not None
