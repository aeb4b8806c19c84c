"""Text of people's own, escaped for the place it is written to, where characters of it would mean something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BREAKS = re.compile(r"\r\n|\r|\n")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~$]|&(?=#?\w+;)")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\n": " ",
    "\r": " ",
} | {character: "\\" + character for character in "&%$#_{}"}


def markdown(text: str) -> str:
    r"""Text for a cell of a Markdown table.

    >>> print(markdown("lora [rank|8] *"))
    lora \[rank\|8\] \*
    """
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(_BREAKS.split(text)))


def latex(text: str) -> str:
    r"""Text for a cell of a LaTeX table.

    A bracket or a star at the front would be read as an argument of the `\\` that ends the row above.

    >>> print(latex("[rank_8]"))
    {[}rank\_8]
    """
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def csv_text(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula; `read_csv_text` is its inverse.

    Text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before it; numbers stay.

    >>> csv_text("=1+1"), csv_text(-1.5)
    ("'=1+1", -1.5)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def read_csv_text(cell: str) -> str:
    """What `csv_text` was given.

    >>> read_csv_text("'=1+1"), read_csv_text("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def plot_text(text: str) -> str:
    r"""Text that matplotlib draws as it is: between two dollar signs it would read a formula.

    >>> print(plot_text("a $\\frac{$ b"))
    a \$\frac{\$ b
    """
    return text.replace("$", r"\$")


def plot_legend(place: Any, lines: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """A legend of a figure or of axes that shows every name; matplotlib leaves out those that begin with `_`."""
    legend = place.legend(lines, [str(number) for number in range(len(names))], **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(plot_text(name))
