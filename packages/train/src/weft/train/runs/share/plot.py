"""A plot of the agreement of tasks: for every part and stack, pairs of tasks by layers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from weft.data.processes.atomic import whole_file
from weft.train.runs.share.agreement import agreement
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.proposal import Z, by_layer, families

_NOISE = "#e8e6e1"
_MOST_MARKED = 400  # numbers that a panel holds before they would run into one another


def draw_agreement(measured: Measurement, path: Path) -> Path:
    """Draw corrected cosines: rows are pairs of tasks, columns layers, a panel for every part of a stack.

    What is less than `Z` standard errors from zero is pale; what cannot be told from noise is grey.

    Args:
        measured: What was measured.
        path: Where to write; the suffix decides the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [by_layer(*family) for family in families(measured)]
    pairs = list(itertools.combinations(range(len(measured.tasks)), 2))
    names = [f"{measured.tasks[i]} · {measured.tasks[j]}" for i, j in pairs]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    widest = max(len(cells) for cells in panels)
    size = (columns * (1.6 + 0.62 * max(widest, 3)) + 1.2, rows * (0.9 + 0.36 * len(pairs)) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    shown: Any = None
    for place, cells in enumerate(panels):
        axes = grid[place // columns][place % columns]
        found = [agreement(products) for _, products in cells]
        cosine = np.array([[one.cosine[pair] for one in found] for pair in pairs])
        error = np.array([[one.error[pair] for one in found] for pair in pairs])
        sure = np.abs(cosine) > Z * error
        axes.set_facecolor(_NOISE)
        shown = axes.imshow(
            np.ma.masked_invalid(np.clip(cosine, -1, 1)),
            cmap="RdBu",
            vmin=-1,
            vmax=1,
            alpha=np.where(sure, 1.0, 0.35),
            aspect="auto",
        )
        first = cells[0][0][0]
        axes.set_title(" ".join(word for word in (first.tower, first.stack, first.part) if word), fontsize=10)
        axes.set_yticks(range(len(pairs)), names if place % columns == 0 else [""] * len(pairs), fontsize=8)
        layers = ["all" if own[0].layer is None else str(own[0].layer) for own, _ in cells]
        axes.set_xticks(range(len(cells)), layers, fontsize=8)
        axes.tick_params(length=0)
        if cosine.size <= _MOST_MARKED:
            _write_numbers(axes, cosine, sure)
    for place in range(len(panels), rows * columns):
        grid[place // columns][place % columns].set_visible(False)
    figure.supxlabel("layer", fontsize=9)
    bar = figure.colorbar(shown, ax=grid, shrink=0.8)
    bar.set_label("corrected cosine (pale: not told from 0; grey: noise)", fontsize=8)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return path


def _write_numbers(axes: Any, cosine: np.ndarray, sure: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(cosine):
        if not math.isnan(value):
            dark = abs(value) > 0.6 and sure[row, column]
            axes.text(
                column,
                row,
                f"{round(float(np.clip(value, -1, 1)), 1) + 0.0:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "#1b2733",
            )
