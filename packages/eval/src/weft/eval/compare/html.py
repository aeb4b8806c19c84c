"""The comparison as one self-contained page: sortable table, plot, example predictions."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.eval.compare.comparison import Comparison
from weft.eval.compare.plots import pareto_plot, task_bars
from weft.eval.compare.table import Cell, layout
from weft.eval.errors import ComparisonError
from weft.eval.rendering.page import page
from weft.eval.rendering.parts import cell, examples_table, picture, sortable_table, table_row


def to_html(
    comparison: Comparison,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    curves: Path | str | None = None,
) -> str:
    """Render one page that needs no other file and no network.

    Args:
        comparison: The comparison.
        examples: Rows of a table of example predictions, each a mapping from heading to text; a value that is
            `bytes` is shown as a PNG picture.
        curves: A PNG of learning curves to include.

    Returns:
        The page.
    """
    table = layout(comparison)
    title = html.escape(comparison.title or "Comparison")
    rows = (
        table_row(map(_cell, row), "baseline" if place >= table.baselines else "")
        for place, row in enumerate(table.rows)
    )
    parts = [
        f"<h1>{title}</h1>",
        sortable_table(table.columns, rows),
        '<p class="note">Click a heading to sort. Bold: best mean among the methods. ± is the standard '
        f"deviation over seeds. Italics: baselines. {html.escape(comparison.note)}</p>",
        *_pictures(comparison, curves),
    ]
    if examples:
        parts += ["<h2>Example predictions</h2>", examples_table(examples)]
    return page(title, "\n".join(parts))


def _cell(content: Cell) -> str:
    return cell(html.escape(content.text), content.value, "best" if content.best else "")


def _pictures(comparison: Comparison, curves: Path | str | None) -> list[str]:
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            drawn = pareto_plot(comparison, Path(folder) / "pareto.png").read_bytes()
            parts += ["<h2>Score against size</h2>", picture(drawn, "average score against trained share")]
        except ComparisonError as error:
            parts.append(f'<p class="note">No Pareto plot: {html.escape(str(error))}</p>')
        bars = task_bars(comparison, Path(folder) / "bars.png")
        parts += ["<h2>Per task</h2>", picture(bars.read_bytes(), "scores per task")]
    if curves is not None:
        parts += ["<h2>Learning curves</h2>", picture(Path(curves).read_bytes(), "learning curves")]
    return parts
