"""Parts of a page: tables, and pictures within the page itself. Text is escaped here; `markup` is HTML already."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def sortable_table(columns: Sequence[str], rows: Iterable[str]) -> str:
    """A table that a click on a heading sorts; rows as `table_row` makes them."""
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in columns
    )
    return _scrolling("sortable", head, "".join(rows))


def table_row(cells: Iterable[str], kind: str = "") -> str:
    """A row of cells as `cell` makes them, with a class of style or none."""
    return f"<tr{f' class={kind}' if kind else ''}>{''.join(cells)}</tr>"


def cell(markup: str, value: object = None, kind: str = "") -> str:
    """A cell that is sorted by its value, with a class of style or none."""
    sorted_by = "" if value is None else html.escape(str(value))
    return f'<td data-value="{sorted_by}"{f" class={kind}" if kind else ""}>{markup}</td>'


def examples_table(examples: Sequence[Mapping[str, Any]]) -> str:
    """A table of examples; `bytes` become pictures, everything else escaped text."""
    columns = list(dict.fromkeys(name for example in examples for name in example))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    rows = [[f"<td>{_value(example.get(name, ''))}</td>" for name in columns] for example in examples]
    return _scrolling("examples", head, "".join(map(table_row, rows)))


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
