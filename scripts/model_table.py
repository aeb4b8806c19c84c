"""Write the table of models into docs/own_models.md, each entry checked by the contract of readers."""

from __future__ import annotations

import re
from pathlib import Path

from weft.core.testing.processed import TINY
from weft.eval.testing import capabilities, markdown
from weft.eval.testing.tiny_subjects import tiny_subjects

PAGE = Path(__file__).parents[1] / "docs" / "own_models.md"
PLACE = re.compile(r"(?<=<!-- models: begin -->\n).*(?=<!-- models: end -->)", re.DOTALL)


def table() -> str:
    """The table as Markdown: a line for each of the tiny models, under the name of what it is a model of."""
    found = capabilities(tiny_subjects())
    return f"\n{markdown({_title(name): row for name, row in found.items()})}\n\n"


def _title(name: str) -> str:
    about = (TINY[name].__doc__ or name).partition("\n")[0]
    return re.split(r":|, and|\.$", about)[0]


def main() -> None:
    """Put the table in its place."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PLACE.sub(lambda _: table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
