"""Write the tables of sharing in docs/real_weights.md, and their plots, from what benchmarks/real_sharing.py wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from weft.eval.compare import Comparison, pareto_plot
from weft.eval.compare.row import Row

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "packages" / "train" / "benchmarks" / "results" / "real_sharing.json"
PAGE = ROOT / "docs" / "real_weights.md"
IMAGES = ROOT / "docs" / "images"
FULL = "full fine-tuning"
WITHIN = 1.96
"""Standard errors on either side of a mean that 95 of 100 intervals reach."""

Cell = dict[str, Any]


def table(cells: list[Cell]) -> str:
    """One line for each way of training an encoder: its share, its accuracies and its distance to full fine-tuning.

    Args:
        cells: The runs of one encoder.
    """
    tasks = list(cells[0]["scores"])
    columns = ("way", "seeds", "trained", *tasks, "average", f"less {FULL}")
    lines = [columns, ("---", *["---:"] * (len(columns) - 1))]
    by_way = grouped(cells)
    full = by_way.get(FULL)
    for way, own in by_way.items():
        percent = 100 * own[0]["trainable"] / own[0]["total"]
        accuracies = [f"{fmean(cell['scores'][task]['accuracy'] for cell in own):.1f}" for task in tasks]
        mean = fmean(cell["average"] for cell in own)
        gap = "" if full is None or way == FULL else difference(own, full)
        average = f"{mean:.1f} ± {WITHIN * error(own):.1f}"
        lines.append((way, str(len(own)), f"{percent:.2f} %", *accuracies, average, gap))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped(cells: list[Cell]) -> dict[str, list[Cell]]:
    """Way to its runs, one for each seed."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell["way"], []).append(cell)
    return found


def error(own: list[Cell]) -> float:
    """Standard error of the mean over tasks and seeds: of the test images, and of the seeds where there are several."""
    tasks = own[0]["test"]
    shares = {task: fmean(cell["scores"][task]["accuracy"] for cell in own) / 100 for task in tasks}
    images = (
        sum(100**2 * share * (1 - share) / tasks[task] for task, share in shares.items()) / len(tasks) ** 2
    )
    seeds = stdev(cell["average"] for cell in own) ** 2 / len(own) if len(own) > 1 else 0.0
    return float((images + seeds) ** 0.5)


def difference(own: list[Cell], other: list[Cell]) -> str:
    """Difference of two means, with its interval as if they were of different images."""
    gap = fmean(cell["average"] for cell in own) - fmean(cell["average"] for cell in other)
    return f"{gap:+.1f} ± {WITHIN * (error(own) ** 2 + error(other) ** 2) ** 0.5:.1f}"


def compared(cells: list[Cell]) -> Comparison:
    """The runs as `weft compare` draws them."""
    rows = [
        Row(
            method=cell["way"],
            label=cell["way"],
            scores={task: scores["accuracy"] for task, scores in cell["scores"].items()},
            seed=cell["seed"],
            trainable=cell["trainable"],
            total=cell["total"],
            control=cell["trainable"] == 0,
        )
        for cell in cells
    ]
    return Comparison(rows, title="")


def main() -> None:
    """Write both."""
    cells: list[Cell] = json.loads(RESULT.read_text(encoding="utf-8"))["cells"]
    page = PAGE.read_text(encoding="utf-8")
    for encoder in dict.fromkeys(cell["encoder"] for cell in cells):
        own = [cell for cell in cells if cell["encoder"] == encoder]
        place = re.compile(
            rf"(?<=<!-- sharing {encoder}: begin -->\n).*(?=<!-- sharing {encoder}: end -->)", re.DOTALL
        )
        made = f"\n{table(own)}\n\n"
        page = place.sub(lambda _, made=made: made, page)
        if any(cell["trainable"] for cell in own):
            pareto_plot(compared(own), IMAGES / f"real_sharing_{encoder}.png")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
