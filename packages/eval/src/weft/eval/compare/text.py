"""Comparison tables as terminal output, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from weft.data.errors import MalformedRecordError
from weft.data.sources.texts import parse_csv
from weft.eval.compare.comparison import Comparison
from weft.eval.compare.row import Row, row_of
from weft.eval.compare.table import layout
from weft.eval.errors import ComparisonError, shown
from weft.eval.rendering.escape import csv_text, latex, markdown, read_csv_text

if TYPE_CHECKING:
    from rich.table import Table

_ANY_WIDTH = 10_000


def to_terminal(comparison: Comparison, width: int | None = None) -> str:
    """Render for a terminal of so many columns, with a rule above the baselines and the best scores in bold.

    The width is found out when it is `None`; there are colour codes only when standard output is a terminal.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=width, markup=False, emoji=False)
    unbounded = console.options.update(width=_ANY_WIDTH)
    rendered = _rich_table(comparison, 2)
    if Measurement.get(console, unbounded, rendered).maximum > console.width:
        rendered = _rich_table(comparison, 1)
    # A table that is still too wide is cut by the terminal rather than folded into unreadable cells.
    console.width = max(console.width, Measurement.get(console, unbounded, rendered).maximum)
    with console.capture() as capture:
        console.print(rendered)
    lines = [line.rstrip() for line in capture.get().removesuffix("\n").split("\n")]
    return "\n".join([*lines, comparison.note] if comparison.note else lines) + "\n"


def _rich_table(comparison: Comparison, digits: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = layout(comparison, digits)
    rendered = Table(
        title=comparison.title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for place, name in enumerate(table.columns):
        rendered.add_column(name, justify="right" if place else "left", no_wrap=True)
    for place, row in enumerate(table.rows):
        rendered.add_row(
            *(Text(cell.text, style="bold" if cell.best else "") for cell in row),
            end_section=place + 1 == table.baselines,
            style="dim" if place >= table.baselines else None,
        )
    return rendered


def to_markdown(comparison: Comparison) -> str:
    """Render as a Markdown table, best scores in bold, baselines in italics."""
    table = layout(comparison)
    lines = [
        "| " + " | ".join(map(markdown, table.columns)) + " |",
        "|---" + "|---:" * (len(table.columns) - 1) + "|",
    ]
    for place, row in enumerate(table.rows):
        cells = [f"**{markdown(cell.text)}**" if cell.best else markdown(cell.text) for cell in row]
        if place >= table.baselines:
            cells[0] = f"*{cells[0]}*"
        lines.append("| " + " | ".join(cells) + " |")
    if comparison.note:
        lines += ["", markdown(comparison.note)]
    return "\n".join(lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Render one line per run (not per method) with every number in full, and no text that is a formula."""
    before, after = list(_READERS)[:4], list(_READERS)[4:]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(csv_text, [*before, *(_TEST + task for task in comparison.tasks), *after]))
    for row in comparison.rows:
        scores = [row.scores.get(task, "") for task in comparison.tasks]
        own, rest = ([getattr(row, _FIELDS.get(name, name)) for name in names] for names in (before, after))
        writer.writerow(map(csv_text, [*own, *scores, *rest]))
    return buffer.getvalue()


def rows_from_csv(text: str) -> list[Row]:
    """Read rows in the form that `to_csv` writes; a table of published numbers is written by hand in it.

    Args:
        text: Lines with a heading. Only `method` and one `test/<task>` column are needed; `published` says where
            a number was printed.

    Raises:
        ComparisonError: It is no CSV, a column is unknown, or a cell is not a number.
    """
    rows = []
    for number, line in enumerate(_lines(text), start=2):
        unknown = [name for name in line if name not in _READERS and not name.startswith(_TEST)]
        if unknown or not line.get("method"):
            raise ComparisonError(
                f"A table must have `method`, test/<task> and may have {', '.join(_READERS)}, but line {number} "
                f"has {shown(unknown) or 'no method'}. Rename the columns."
            )
        try:
            fields = {
                _FIELDS.get(name, name): read(line[name]) for name, read in _READERS.items() if line.get(name)
            }
            tests = [name for name in line if name.startswith(_TEST) and line[name]]
            scores = {name.removeprefix(_TEST): float(line[name]) for name in tests}
        except ValueError as error:
            raise ComparisonError(
                f"Each score must be a number, but line {number} has another: {error}."
            ) from error
        rows.append(row_of(number, {"label": fields["method"], **fields, "scores": scores}))
    return rows


def _lines(text: str) -> list[dict[str, str]]:
    """Column to cell of every line below the heading."""
    try:
        head, *lines = [cells for cells in parse_csv(text) if cells] or [[]]
    except MalformedRecordError as error:
        raise ComparisonError(f"A table must be CSV, but is not: {error}. Export it again.") from error
    long = [number for number, cells in enumerate(lines, start=2) if len(cells) > len(head)]
    if long:
        raise ComparisonError(
            f"A line must have at most {len(head)} cells, as the heading has, but line {shown(long)} has more. Put "
            "cells with commas in quotes."
        )
    return [dict(zip(head, cells, strict=False)) for cells in lines]


_TEST = "test/"
_FIELDS = {"memory_mb": "memory"}
_READERS: dict[str, Callable[[str], Any]] = {
    "method": read_csv_text,
    "label": read_csv_text,
    "seed": int,
    "control": lambda cell: cell.strip().lower() == "true",
    "trainable": int,
    "total": int,
    "seconds": float,
    "memory_mb": float,
    "run_id": read_csv_text,
    "published": read_csv_text,
    "percent": float,
}


def to_latex(comparison: Comparison) -> str:
    """Render as a LaTeX `tabular` for the `booktabs` package, best scores in bold."""
    table = layout(comparison)
    lines = [
        r"\begin{tabular}{l" + "r" * (len(table.columns) - 1) + "}",
        r"\toprule",
        " & ".join(latex(name) for name in table.columns) + r" \\",
        r"\midrule",
    ]
    for place, row in enumerate(table.rows):
        if place == table.baselines:
            lines.append(r"\midrule")
        cells = [rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text) for cell in row]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
