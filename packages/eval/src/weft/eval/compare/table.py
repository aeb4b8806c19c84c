"""The cells of a comparison, once for every renderer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from weft.eval.compare.comparison import Comparison, Spread

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: What people read.
        value: What tables sort by, or `None` where there is nothing.
        best: Whether no other method has a better mean in this column.
    """

    text: str
    value: float | str | None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A comparison laid out.

    Attributes:
        columns: Headings.
        rows: One list of cells per method.
        baselines: Index of the first baseline row (the number of rows when there is none).
    """

    columns: list[str]
    rows: list[list[Cell]]
    baselines: int


def layout(comparison: Comparison, digits: int = 2) -> Table:
    """Lay a comparison out as headings and cells.

    Columns about parameters, time, memory and seeds appear only where at least one run reports them. Scores have so
    many digits; the best mean of each task among the methods (baselines and published rows apart) is marked.
    """
    entries = comparison.entries
    ours = [entry for entry in entries if entry.competes]
    best = {task: _best(entry.scores.get(task) for entry in ours) for task in comparison.tasks}
    best_average = _best(entry.average for entry in ours)
    extra = [
        ("trainable %", [entry.percent for entry in entries], 3),
        ("seconds", [entry.seconds for entry in entries], 1),
        ("peak MB", [entry.memory for entry in entries], 0),
    ]
    extra = [column for column in extra if any(value is not None for value in column[1])]
    seeds = any(len(entry.seeds) > 1 for entry in entries)
    rows = []
    for place, entry in enumerate(entries):
        source = "" if entry.published is None else f" ({entry.published})"
        cells = [Cell(entry.label + source, entry.label)]
        for task in comparison.tasks:
            mark = comparison.marks.get((entry.method, task), "")
            cells.append(_score(entry.scores.get(task), best[task], entry.competes, digits, mark))
        if len(comparison.tasks) > 1:
            cells.append(_score(entry.average, best_average, entry.competes, digits))
        cells += [_number(values[place], decimals) for _, values, decimals in extra]
        if seeds:
            cells.append(Cell(str(len(entry.seeds)), float(len(entry.seeds))))
        rows.append(cells)
    columns = ["method", *comparison.tasks]
    columns += ["average"] if len(comparison.tasks) > 1 else []
    columns += [name for name, _, _ in extra] + (["seeds"] if seeds else [])
    return Table(columns, rows, baselines=sum(not entry.control for entry in entries))


def _best(spreads: Iterable[Spread | None]) -> float | None:
    return max((spread.mean for spread in spreads if spread is not None), default=None)


def _score(spread: Spread | None, best: float | None, competes: bool, digits: int, mark: str = "") -> Cell:
    if spread is None:
        return Cell(ABSENT, None)
    return Cell(spread.text(digits) + mark, spread.mean, competes and spread.mean == best)


def _number(value: float | None, decimals: int) -> Cell:
    return Cell(ABSENT, None) if value is None else Cell(f"{value:,.{decimals}f}", value)
