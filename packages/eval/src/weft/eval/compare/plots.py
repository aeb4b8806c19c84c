"""Pictures of a comparison: score against size, bars per task, learning curves."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.data.processes.atomic import whole_file
from weft.eval.compare.comparison import Comparison, Entry, Spread
from weft.eval.compare.labels import place_labels
from weft.eval.errors import ComparisonError
from weft.eval.rendering.escape import plot_legend, plot_text

_INK = "#1b2733"
_FAINT = "#8a97a3"
_LEGEND = "on the line: no other method scores higher with fewer trained parameters"
_PALETTE = ("#0b7a75", "#d1495b", "#edae49", "#30638e", "#7b5ea7", "#6b8f3c", "#b5651d", "#5c6b73", "#c06c9b")
_DASHES = ("-", "--", ":", "-.")
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": 9}


def pareto_plot(comparison: Comparison, path: Path | str, *, width: float = 9.0, height: float = 5.2) -> Path:
    """Draw the average score against the share of trained parameters.

    Methods nobody beats in both are joined by a line. Baselines are dashed horizontal lines. Whiskers are one
    standard deviation over seeds.

    Args:
        comparison: The comparison.
        path: Where to write; the suffix (`.png`, `.svg`, `.pdf`) decides the format.
        width: Inches.
        height: Inches.

    Returns:
        The path.

    Raises:
        ComparisonError: No method has both an average over all tasks and a trainable share.
    """
    averaged = [(entry, entry.average) for entry in comparison.entries if entry.average is not None]
    shown = [(one, one.percent, average) for one, average in averaged if one.percent and not one.control]
    controls = [(entry.label, average) for entry, average in averaged if entry.control]
    if not shown:
        raise ComparisonError(
            "A Pareto plot needs a method with scores on all tasks and parameter counts, but none has both. "
            "Log `parameters/trainable` and `parameters/total`."
        )
    from matplotlib.ticker import LogLocator

    figure, axes = _figure(width, height)
    spreads = [average for _, _, average in shown] + [average for _, average in controls]
    _set_limits(axes, [percent for _, percent, _ in shown], spreads)
    front = comparison.front()
    line = [(entry.percent, entry.average.mean) for entry in front if entry.percent and entry.average]
    if len(line) > 1:
        axes.plot(*zip(*line, strict=True), color=_FAINT, linewidth=1.6, alpha=0.55, zorder=2)
    colours = method_colours(comparison)
    for entry, _, average in shown:
        _draw_point(axes, entry, average, colours[entry.label])
    _baselines(axes, controls)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}%")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("trained parameters, % of the model (log scale)")
    tasks = comparison.tasks
    axes.set_ylabel(f"average score over {len(tasks)} tasks" if len(tasks) > 1 else plot_text(tasks[0]))
    if comparison.title:
        axes.set_title(plot_text(comparison.title), loc="left", fontsize=12, color=_INK, pad=22)
    axes.text(0.0, 1.02, _LEGEND, transform=axes.transAxes, fontsize=9, color=_FAINT)
    points = [(percent, average.mean, entry.label) for entry, percent, average in shown]
    place_labels(axes, points, line=line, color=_INK)
    return _save(figure, path)


def method_colours(comparison: Comparison) -> dict[str, str]:
    """The colour of each method, by its label: the same in every picture of the same methods. Controls are grey.

    It does not depend on the order of the runs, nor on what others published being shown beside them.
    """
    own = sorted(
        (entry.published is not None, entry.label) for entry in comparison.entries if not entry.control
    )
    colours = {label: colour for (_, label), colour in zip(own, itertools.cycle(_PALETTE), strict=False)}
    return {entry.label: colours.get(entry.label, _FAINT) for entry in comparison.entries}


def _set_limits(axes: Any, shares: Sequence[float], scores: Sequence[Spread]) -> None:
    """Set logarithmic shares and linear scores, with room for labels."""
    axes.set_xscale("log")
    axes.set_xlim(min(shares) / 2.2, max(200.0, max(shares) * 2) if max(shares) > 50 else max(shares) * 2.2)
    low = min(score.mean - (score.std or 0.0) for score in scores)
    high = max(score.mean + (score.std or 0.0) for score in scores)
    margin = max(high - low, 1.0)
    axes.set_ylim(low - 0.10 * margin, high + 0.14 * margin)


def _draw_point(axes: Any, entry: Entry, average: Spread, color: str) -> None:
    """Draw a method as a point with its deviation; one that others published is hollow."""
    axes.errorbar(
        entry.percent, average.mean, yerr=average.std or 0.0, fmt="o", markersize=8.5, color=color,
        ecolor=_FAINT, elinewidth=1.2, capsize=2.5 if average.std else 0, markeredgewidth=1.2, zorder=3,
        markeredgecolor="white" if entry.published is None else color,
        markerfacecolor="white" if entry.published else None,
    )  # fmt: skip


def task_bars(comparison: Comparison, path: Path | str, *, width: float = 9.0, height: float = 4.6) -> Path:
    """Draw one group of bars per task, one bar per method, whiskers of one standard deviation over seeds.

    Arguments and result are those of `pareto_plot`.
    """
    figure, axes = _figure(width, height)
    entries, drawn = comparison.entries, []
    colours = method_colours(comparison)
    bar = 0.84 / len(entries)
    for place, entry in enumerate(entries):
        tasks = [number for number, task in enumerate(comparison.tasks) if task in entry.scores]
        spreads = [entry.scores[comparison.tasks[number]] for number in tasks]
        bars = axes.bar(
            [number - 0.42 + bar * (place + 0.5) for number in tasks],
            [spread.mean for spread in spreads],
            bar * 0.92,
            yerr=[spread.std or 0.0 for spread in spreads] if any(spread.std for spread in spreads) else None,
            color=colours[entry.label],
            hatch="//" if entry.control else None,
            edgecolor="white",
            linewidth=0.4,
            error_kw={"elinewidth": 1.0, "ecolor": _INK},
        )
        drawn.append(bars)
    axes.set_xticks(range(len(comparison.tasks)), list(map(plot_text, comparison.tasks)))
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("test score")
    plot_legend(axes, drawn, [entry.label for entry in entries], **_BESIDE)
    return _save(figure, path)


def learning_curves(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    path: Path | str,
    *,
    ylabel: str = "training loss",
    colours: Mapping[str, str] | None = None,
    width: float = 9.0,
    height: float = 4.6,
) -> Path:
    """Draw one line per run against the step.

    Args:
        curves: Label to points `(step, value)`.
        path: Where to write; the suffix decides the format.
        ylabel: Name of the values.
        colours: Label to colour; curves of one colour differ in their dashes. By default each has its own.
        width: Inches.
        height: Inches.

    Returns:
        The path.

    Raises:
        ComparisonError: No curve has a point.
    """
    filled = {label: points for label, points in curves.items() if points}
    if not filled:
        raise ComparisonError(
            "`curves` must hold at least one point, but none does. Log the metric per step."
        )
    figure, axes = _figure(width, height)
    drawn, seen = [], Counter[str]()
    for place, (label, points) in enumerate(filled.items()):
        colour = (colours or {}).get(label, _PALETTE[place % len(_PALETTE)])
        dashes = _DASHES[seen[colour] % len(_DASHES)]
        seen[colour] += 1
        drawn += axes.plot(*zip(*sorted(points), strict=True), color=colour, linestyle=dashes, linewidth=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel(plot_text(ylabel))
    plot_legend(axes, drawn, list(filled), **_BESIDE)
    return _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # The object interface needs no display and leaves no global state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.grid(visible=True, axis="y", color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=_INK, fontsize=11)
    axes.yaxis.label.set(color=_INK, fontsize=11)
    return figure, axes


def _baselines(axes: Any, controls: Sequence[tuple[str, Spread]]) -> None:
    low, high = axes.get_ylim()
    for label, average in controls:
        # Letters are about a twentieth of the picture high: under a line that another one closely follows, not over it.
        crowded = any(0 < other.mean - average.mean < (high - low) / 20 for _, other in controls)
        axes.axhline(average.mean, color=_FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            plot_text(label), (1.0, average.mean), xycoords=("axes fraction", "data"),
            xytext=(-2, -3 if crowded else 3), textcoords="offset points", ha="right",
            va="top" if crowded else "bottom", fontsize=9, color=_FAINT,
        )  # fmt: skip


def _save(figure: Any, path: Path | str) -> Path:
    target = Path(path)
    with whole_file(target) as temporary:
        figure.savefig(temporary, dpi=160, facecolor="white")
    return target
