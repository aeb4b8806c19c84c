"""Write the table of the demo in README.md and docs/demo.md, and its plot, from the runs of several seeds.

`weft demo --seed 1 --output seed1` writes `seed1/comparison.csv`; `python scripts/demo_tables.py seed*/comparison.csv`
keeps the rows of these files and writes the tables, without files it writes them of the rows kept.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from weft.eval.compare import Comparison, pareto_plot, rows_from_csv, to_csv
from weft.eval.compare.table import layout

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "packages" / "train" / "benchmarks" / "results" / "demo.csv"
PAGES = (ROOT / "README.md", ROOT / "docs" / "demo.md")
PICTURE = ROOT / "docs" / "images" / "pareto.png"
PLACE = re.compile(
    r"(?<=<!-- demo: written by `scripts/demo_tables.py` -->\n).*?(?=<!-- end of demo -->)", re.S
)


def kept() -> Comparison:
    """The runs behind the tables."""
    return Comparison.from_rows(rows_from_csv(KEPT.read_text("utf-8")))


def table(comparison: Comparison) -> str:
    """Scores with their deviations over seeds, and the share of weights trained; baselines in italics.

    Args:
        comparison: The runs.
    """
    laid_out = layout(comparison, digits=1)
    shown = [place for place, name in enumerate(laid_out.columns) if name not in ("seconds", "seeds")]
    lines = [[laid_out.columns[place] for place in shown], ["---", *["---:"] * (len(shown) - 1)]]
    for number, row in enumerate(laid_out.rows):
        label, *cells = (row[place].text for place in shown)
        lines.append([label if number < laid_out.baselines else f"*{label}*", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def keep(files: list[Path]) -> None:
    """Keep the rows of tables, without what differs between machines.

    Args:
        files: `comparison.csv` of one demo for each seed.
    """
    rows = [row for file in files for row in rows_from_csv(file.read_text("utf-8"))]
    first = rows[0].seed
    # What answers without a model is the same for every seed.
    told = [row for row in rows if row.trainable or row.seed == first]
    plain = [replace(row, seconds=None, memory=None, run_id=None) for row in told]
    KEPT.write_text(to_csv(Comparison.from_rows(plain)), "utf-8")


def main() -> None:
    """Keep the given tables, and write the pages and the plot."""
    if files := [Path(name) for name in sys.argv[1:]]:
        keep(files)
    comparison = kept()
    for page in PAGES:
        page.write_text(PLACE.sub(lambda _: table(comparison), page.read_text("utf-8")), "utf-8")
    pareto_plot(comparison, PICTURE)


if __name__ == "__main__":
    main()
