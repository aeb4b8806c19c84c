"""Comparing runs: one table of methods by tasks, as text, page and picture."""

from weft.eval.compare.comparison import Comparison, Entry, Spread
from weft.eval.compare.from_runs import curve_colours, example_rows, page_from_runs, read_curves
from weft.eval.compare.html import to_html
from weft.eval.compare.plots import learning_curves, pareto_plot, task_bars
from weft.eval.compare.published import published_rows, published_tables, with_published
from weft.eval.compare.row import Row
from weft.eval.compare.significance import significance
from weft.eval.compare.text import rows_from_csv, to_csv, to_latex, to_markdown, to_terminal

__all__ = [
    "Comparison",
    "Entry",
    "Row",
    "Spread",
    "curve_colours",
    "example_rows",
    "learning_curves",
    "page_from_runs",
    "pareto_plot",
    "published_rows",
    "published_tables",
    "read_curves",
    "rows_from_csv",
    "significance",
    "task_bars",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_terminal",
    "with_published",
]
