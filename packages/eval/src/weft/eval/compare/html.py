"""The comparison as one self-contained page: sortable table, plot, example predictions."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.eval.compare.comparison import Comparison
from weft.eval.compare.plots import pareto_plot, task_bars
from weft.eval.compare.table import Cell, layout
from weft.eval.errors import ComparisonError

_STYLE = """
:root { --ink: #1b2733; --faint: #6a7784; --line: #e1e6ea; --accent: #0b7a75; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf1; --faint: #93a1ad; --line: #2d3943; --accent: #4fc3bc; --paper: #12191f; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .45rem .7rem; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child, td:first-child, table.examples td, table.examples th { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.best { font-weight: 700; color: var(--accent); }
tr.baseline td { color: var(--faint); font-style: italic; }
img { max-width: 100%; background: #fff; border-radius: 6px; } img.thumbnail { height: 72px; }
table.examples td { white-space: normal; vertical-align: top; }
.note { color: var(--faint); }
"""

_SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  table.querySelectorAll("th").forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0];
      Array.from(body.rows).sort(function (a, b) {
        var x = a.cells[column].dataset.value, y = b.cells[column].dataset.value;
        if (x === "" || y === "") { return (x === "") - (y === ""); }
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
"""


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
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in table.columns
    )
    body = "".join(
        f"<tr{' class=baseline' if place >= table.baselines else ''}>{''.join(map(_cell, row))}</tr>"
        for place, row in enumerate(table.rows)
    )
    parts = [
        f"<h1>{title}</h1>",
        _scrolling("sortable", head, body),
        '<p class="note">Click a heading to sort. Bold: best mean among the methods. ± is the standard '
        f"deviation over seeds. Italics: baselines. {html.escape(comparison.note)}</p>",
        *_pictures(comparison, curves),
    ]
    if examples:
        parts += ["<h2>Example predictions</h2>", examples_table(examples)]
    return page(title, "\n".join(parts))


def page(title: str, body: str) -> str:
    """Wrap a body into a whole page with the style and the sorting script of these reports."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def examples_table(examples: Sequence[Mapping[str, Any]]) -> str:
    """A table of examples; `bytes` become pictures, everything else escaped text."""
    columns = list(dict.fromkeys(name for example in examples for name in example))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_value(example.get(name, ''))}</td>" for name in columns) + "</tr>"
        for example in examples
    )
    return _scrolling("examples", head, rows)


def picture(data: bytes, alternative: str, kind: str = "") -> str:
    """A PNG written into the page itself."""
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img class="{kind}" alt="{html.escape(alternative)}" src="data:image/png;base64,{encoded}">'


def _scrolling(kind: str, head: str, body: str) -> str:
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _value(value: Any) -> str:
    return picture(value, "example", "thumbnail") if isinstance(value, bytes) else html.escape(str(value))


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else html.escape(str(cell.value))
    return f'<td data-value="{value}"{" class=best" if cell.best else ""}>{html.escape(cell.text)}</td>'


def _pictures(comparison: Comparison, curves: Path | str | None) -> list[str]:
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            drawn = pareto_plot(comparison, Path(folder) / "pareto.png")
        except ComparisonError as error:
            parts.append(f'<p class="note">No Pareto plot: {html.escape(str(error))}</p>')
        else:
            parts += [
                "<h2>Score against size</h2>",
                picture(drawn.read_bytes(), "average score against trained share"),
            ]
        bars = task_bars(comparison, Path(folder) / "bars.png")
        parts += ["<h2>Per task</h2>", picture(bars.read_bytes(), "scores per task")]
    if curves is not None:
        parts += ["<h2>Learning curves</h2>", picture(Path(curves).read_bytes(), "learning curves")]
    return parts
