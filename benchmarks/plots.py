"""The pictures of the page of benchmarks, drawn from the results: a library has one colour in all of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.measure.sides import ROOT
from benchmarks.table import METHODS, SHAPES, found, mixed_results

IMAGES = ROOT / "docs" / "images"
COLOURS = {
    "weft": "#0b7a75",
    "peft": "#d1495b",
    "adapters": "#edae49",
    "MultiTask": "#edae49",
    "BatchSplit": "#b5651d",
}
INK, FAINT = "#1b2733", "#8a97a3"


def over_bare(result: Mapping[str, Any]) -> dict[str, float]:
    """Each library's step over that of the bare model in its own environment."""
    times = {row["side"]: row["cpu_ms"] for row in result["sides"]}
    own = times.get("bare of adapters", times["bare"])
    return {
        name: milliseconds / (times["bare"] if name in ("weft", "peft") else own)
        for name, milliseconds in times.items()
        if name in COLOURS
    }


def steps(folder: Path) -> None:
    """Bars: a step of each method over that of the bare model."""
    results = found("alone_*")
    figure, axes = pyplot.subplots(figsize=(8, 0.75 * len(results) + 1), layout="constrained")
    ticks = []
    for place, result in enumerate(reversed(results)):
        bars = over_bare(result)
        height = 0.8 / len(bars)
        for number, (name, value) in enumerate(reversed(bars.items())):
            drawn = axes.barh(place + (number + 0.5) * height - 0.4, value, height * 0.9, color=COLOURS[name])
            axes.bar_label(drawn, fmt="{:.2f}", fontsize=8, padding=2, color=INK)
        ticks.append(f"{METHODS[result['method']]}\n{SHAPES[result['shape']].short}")
    axes.set_yticks(range(len(ticks)), ticks, fontsize=8)
    axes.axvline(1.0, color=INK, linewidth=0.8)
    axes.set(xlabel="step over a step of the bare model (1 = adapters cost nothing)")
    axes.margins(x=0.1)
    for name in ("weft", "peft", "adapters"):
        axes.barh(0, 0, color=COLOURS[name], label=name)
    _finish(
        figure, axes, folder / "benchmarks_step.png", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3
    )


def mixed(folder: Path) -> None:
    """Lines: what a batch of so many tasks costs over the bare model."""
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    lines: dict[str, list[tuple[int, float]]] = {}
    for result in mixed_results():
        for name, value in over_bare(result).items():
            lines.setdefault(name, []).append((result["tasks"], value))
    for name, points in lines.items():
        places, values = zip(*points, strict=True)
        axes.plot(places, values, color=COLOURS[name], marker="o", label=name)
    counts = [result["tasks"] for result in mixed_results()]
    axes.set(xscale="log", xlabel="tasks in one batch", ylabel="step over the bare model's")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0.9)
    _finish(figure, axes, folder / "benchmarks_mixed.png")


def kernels(folder: Path) -> None:
    """Bars: the operations' speed over plain torch's, as their own benchmark draws them."""
    sys.path.insert(0, str(ROOT / "packages" / "kernels" / "benchmarks"))
    from plot import speedup

    for result in found("kernels"):
        speedup(result["rows"], folder / "benchmarks_kernels.png")


def _finish(figure: Any, axes: Any, path: Path, **place: Any) -> None:
    axes.legend(frameon=False, fontsize=8, **place)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(folder: Path = IMAGES) -> None:
    """Draw all."""
    steps(folder)
    mixed(folder)
    kernels(folder)


if __name__ == "__main__":
    main()
