"""Draw docs/images/pareto.png from the table of docs/demo.md, in the colours that a comparison gives its methods."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from weft.eval.compare import Comparison, pareto_plot

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "demo.md"
PICTURE = ROOT / "docs" / "images" / "pareto.png"
ROW = re.compile(
    r"^\| (?P<method>[^|]+) \|(?P<scores>(?: [\d.]+(?: ± [\d.]+)? \|){5}) (?P<share>[\d.]+|–)", re.M
)


def rows(text: str) -> list[dict[str, Any]]:
    """Rows of a comparison whose averages and deviations over seeds are those of the table.

    Args:
        text: A page with the table.
    """
    found = []
    for match in ROW.finditer(text):
        mean, _, deviation = match["scores"].split("|")[4].strip().partition(" ± ")
        away = float(deviation or 0)
        for seed, value in enumerate((-away, 0.0, away) if deviation else (0.0,)):
            row: dict[str, Any] = {
                "method": match["method"].strip("* "),
                "seed": seed,
                "control": match["method"].startswith("*"),
                "scores": dict.fromkeys(("vqa", "gqa", "nlvr", "caption"), float(mean) + value),
            }
            if match["share"] != "–":
                row |= {"trainable": round(1e4 * float(match["share"])), "total": 10**6}
            found.append(row)
    return found


if __name__ == "__main__":
    pareto_plot(Comparison.from_rows(rows(PAGE.read_text("utf-8"))), PICTURE)
