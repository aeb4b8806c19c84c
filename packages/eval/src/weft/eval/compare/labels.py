"""Placing point labels so that none covers another label or a point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from weft.eval.rendering.escape import plot_text

# Offsets from the point in printer's points with the alignment of the text, nearest and most readable first.
_NEAR = (
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (8, 8, "left", "bottom"),
    (8, -8, "left", "top"),
    (-8, 8, "right", "bottom"),
    (-8, -8, "right", "top"),
)
_FAR = tuple(
    (dx * side, dy, "left" if side > 0 else "right", "center")
    for dy, dx, side in itertools.product((22, -22, 36, -36, 50, -50, 64, -64, 80, -80), (14, 30), (1, -1))
)
_LEADER = 12
_LEADER_STYLE = {"arrowstyle": "-", "color": "#b8c1c9", "linewidth": 0.8, "shrinkB": 5}
_POINT_RADIUS = 9.0
_STROKE = 2.0

Box = tuple[float, float, float, float]


def place_labels(
    axes: Any,
    points: Sequence[tuple[float, float, str]],
    *,
    line: Sequence[tuple[float, float]] = (),
    color: str,
    size: float = 10.0,
) -> None:
    """Write a label beside every point.

    Each label takes the first position around its point where it covers neither a point nor a label nor the
    line, nor leaves the axes; a label that had to move away gets a thin line back to its point.

    Args:
        axes: Matplotlib axes with final limits.
        points: `(x, y, label)` in data coordinates.
        line: Corners `(x, y)` of a drawn line that labels keep off.
        color: Colour of the text.
        size: Its size in printer's points.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken: list[Box] = [
        (x - _POINT_RADIUS, y - _POINT_RADIUS, x + _POINT_RADIUS, y + _POINT_RADIUS) for x, y in centres
    ]
    strokes = _strokes([axes.transData.transform(corner) for corner in line])
    frame = axes.get_window_extent(renderer)
    inside: Box = (frame.x0, frame.y0, frame.x1, frame.y1)
    # Crowded points first: they have the fewest places to go.
    for one in sorted(range(len(points)), key=lambda one: _nearest(centres, one)):
        x, y, label = points[one]
        written = {"textcoords": "offset points", "fontsize": size, "color": color, "zorder": 4}
        write = partial(axes.annotate, plot_text(label), (x, y), **written)
        best, least = None, float("inf")
        for dx, dy, horizontal, vertical in _NEAR + _FAR:
            text = write(xytext=(dx, dy), ha=horizontal, va=vertical)
            extent = text.get_window_extent(renderer)
            box: Box = (extent.x0 - 1, extent.y0 - 1, extent.x1 + 1, extent.y1 + 1)
            cost = sum(_overlap(box, other) for place, other in enumerate(taken) if place != one)
            cost += sum(_overlap(box, stroke) for stroke in strokes)
            cost += 10 * _outside(box, inside)
            text.remove()
            if cost < least:
                best, least = (dx, dy, horizontal, vertical, box), cost
            if cost == 0:
                break
        assert best is not None, "at least one position was tried"
        dx, dy, horizontal, vertical, box = best
        leader = _LEADER_STYLE if max(abs(dx), abs(dy)) > _LEADER else None
        write(xytext=(dx, dy), ha=horizontal, va=vertical, arrowprops=leader)
        taken.append(box)


def _strokes(corners: Sequence[Any]) -> list[Box]:
    """Small boxes along a line."""
    boxes: list[Box] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        steps = int(max(abs(x1 - x0), abs(y1 - y0)) // (2 * _STROKE)) + 1
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            boxes.append((x - _STROKE, y - _STROKE, x + _STROKE, y + _STROKE))
    return boxes


def _nearest(centres: Sequence[Any], one: int) -> float:
    x, y = centres[one]
    return min(
        ((x - other[0]) ** 2 + (y - other[1]) ** 2 for place, other in enumerate(centres) if place != one),
        default=0.0,
    )


def _overlap(left: Box, right: Box) -> float:
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    return _overlap(box, box) - _overlap(box, frame)
