"""Write the tables of sharing in docs/real_weights.md, and their plots, from what benchmarks/real_sharing.py wrote."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from real_tables import markdown, placed

from weft.eval.compare import Comparison, pareto_plot
from weft.eval.compare.row import Row
from weft.eval.metrics import ScoreReport, paired_test
from weft.eval.report.pairing import scores_alone

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "packages" / "train" / "benchmarks" / "results" / "real_sharing.json"
PAGE = ROOT / "docs" / "real_weights.md"
IMAGES = ROOT / "docs" / "images"
FULL = "full fine-tuning"
PLAIN = (FULL, "linear probe", "frozen")
OTHERS = ("multiple", "half", "layers")
WITHIN = 1.96
"""Standard errors on either side of a mean that 95 of 100 intervals reach."""

RESAMPLES = 2_000
"""Random choices of signs of a paired test."""

Cell = dict[str, Any]


def table(cells: list[Cell]) -> str:
    """One line for each way of training an encoder: its rate, its share and its accuracies.

    Args:
        cells: The runs of one encoder.
    """
    tasks = list(dict.fromkeys(task for cell in cells for task in cell["scores"]))
    columns = ("way", "rate", "seeds", "trained", *tasks, "average")
    lines = [columns, ("---", *["---:"] * (len(columns) - 1))]
    for way, own in grouped(cells).items():
        percent = 100 * own[0]["trainable"] / own[0]["total"]
        accuracies = [f"{fmean(cell['scores'][task]['accuracy'] for cell in own):.1f}" for task in tasks]
        average = f"{fmean(cell['average'] for cell in own):.1f} ± {WITHIN * error(own):.1f}"
        rate = shown(own[0]["learning_rate"]) if own[0]["trainable"] else ""
        lines.append((way, rate, str(len(own)), f"{percent:.2f} %", *accuracies, average))
    return markdown(lines)


def search_table(cells: list[Cell]) -> str:
    """Averages on the images that rates were chosen on, the best of each line in bold.

    Args:
        cells: The runs of the search of one encoder.
    """
    rates = sorted({cell["learning_rate"] for cell in cells})
    lines = [("way", *map(shown, rates)), ("---", *["---:"] * len(rates))]
    for way, own in grouped(cells).items():
        at = {cell["learning_rate"]: cell["average"] for cell in own}
        found = {
            rate: f"**{score:.1f}**" if score == max(at.values()) else f"{score:.1f}"
            for rate, score in at.items()
        }
        lines.append((way, *(found.get(rate, "") for rate in rates)))
    return markdown(lines)


def shown(rate: float) -> str:
    """A learning rate, such as 3e-3."""
    return f"{rate:.0e}".replace("e-0", "e-")


def pair_table(cells: list[Cell]) -> str:
    """Differences of two ways on the same images and seeds.

    Args:
        cells: The runs of one encoder.
    """
    by_way = grouped(cells)
    units = list(dict.fromkeys(way.partition(",")[0] for way in by_way if "," in way))
    pairs = [(f"{unit}, single", other) for other in PLAIN for unit in units]
    pairs += [(f"{unit}, single", f"{unit}, {sharing}") for sharing in OTHERS for unit in units]
    pairs.append((FULL, PLAIN[1]))
    lines = [("ways", "seeds", "difference", "p over images", "of each seed"), ("---", *["---:"] * 4)]
    for one, other in pairs:
        seeds = sorted(
            {cell["seed"] for cell in by_way.get(one, ())} & {cell["seed"] for cell in by_way.get(other, ())}
        )
        if seeds:
            first, second = ([cell for cell in by_way[way] if cell["seed"] in seeds] for way in (one, other))
            lines.append((f"{one} - {other}", str(len(seeds)), *difference(first, second)))
    return markdown(lines)


def difference(own: list[Cell], other: list[Cell]) -> tuple[str, str, str]:
    """Mean difference with its interval, the p-value of a paired test over images, and the difference of each seed."""
    found = paired_test(report(own), report(other), resamples=RESAMPLES)
    gaps = [
        next(cell["average"] for cell in own if cell["seed"] == rival["seed"]) - rival["average"]
        for rival in sorted(other, key=lambda cell: cell["seed"])
    ]
    images = 0.0
    for task, count in own[0]["test"].items():
        apart = [one - two for one, two in zip(told_right(own, task), told_right(other, task), strict=True)]
        images += stdev(apart) ** 2 / count / len(own[0]["test"]) ** 2
    seeds = stdev(gaps) ** 2 / len(gaps) if len(gaps) > 1 else 0.0
    chance = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    within = WITHIN * (images + seeds) ** 0.5
    return f"{fmean(gaps):+.1f} ± {within:.1f}", chance, ", ".join(f"{gap:+.1f}" for gap in gaps)


def told_right(cells: list[Cell], task: str) -> list[float]:
    """For each test image of a task the per cent of seeds that tell it right."""
    return [
        100 * fmean(map(int, seeds)) for seeds in zip(*(cell["right"][task] for cell in cells), strict=True)
    ]


def report(cells: list[Cell]) -> ScoreReport:
    """All test images, each with such a weight that their mean is the average over tasks."""
    tests = cells[0]["test"]
    scores = {
        f"{task}-{place}": value * sum(tests.values()) / len(tests) / count
        for task, count in tests.items()
        for place, value in enumerate(told_right(cells, task))
    }
    return scores_alone(scores, "accuracy")


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


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with the tables of a result.

    Args:
        page: The page, in which comments say where the tables are.
        result: What the benchmark wrote.
    """
    for encoder in dict.fromkeys(cell["encoder"] for cell in result["cells"]):
        own, searched = (
            [cell for cell in result[part] if cell["encoder"] == encoder] for part in ("cells", "search")
        )
        made = {
            f"search {encoder}": search_table(searched),
            f"sharing {encoder}": table(own),
            f"pairs {encoder}": pair_table(own),
        }
        page = placed(page, made)
    return page


def main() -> None:
    """Write both."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    for encoder in dict.fromkeys(cell["encoder"] for cell in result["cells"]):
        own = [cell for cell in result["cells"] if cell["encoder"] == encoder]
        if any(cell["trainable"] for cell in own):
            pareto_plot(compared(own), IMAGES / f"real_sharing_{encoder}.png")


if __name__ == "__main__":
    main()
