"""Roofline and speed-up plots of benchmark rows."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# What a row says about its shape, in the order it is written.
SHAPE = ("tokens", "d", "r", "tasks", "queries", "keys", "classes", "betas")


def draw(rows: list[dict[str, Any]], ceilings: dict[str, float], folder: pathlib.Path) -> None:
    """Write ``roofline.png`` and ``speedup.png`` to `folder`."""
    _roofline(rows, ceilings, folder / "roofline.png")
    speedup(rows, folder / "speedup.png")


def _roofline(rows: list[dict[str, Any]], ceilings: dict[str, float], file: pathlib.Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    copy, gemm = ceilings["copy_gbps"] / 1e3, ceilings["gemm_tflops"]
    ridge = gemm / copy
    axes.plot(
        [ridge / 64, ridge, ridge * 512], [gemm / 64, gemm, gemm], color="black", label="measured roof", lw=1
    )
    for suite in sorted({row["suite"] for row in rows}):
        points = [row for row in rows if row["suite"] == suite and row["provider"] == "weft"]
        speeds = [row["percent_gemm_roof"] / 100 * gemm for row in points]
        bandwidths = [row["percent_copy_roof"] / 100 * copy for row in points]
        pairs = zip(speeds, bandwidths, strict=True)
        axes.scatter([speed / max(band, 1e-9) for speed, band in pairs], speeds, label=suite, s=18, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOP/s")
    _plain(axes.xaxis, "{:g}")
    _plain(axes.yaxis, "{:g}")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def speedup(rows: list[dict[str, Any]], file: pathlib.Path) -> None:
    """Draw how many times as fast as its rivals each operation is."""
    rivals = [row for row in rows if row["provider"] not in ("weft", "one-task")][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.25 * len(rivals) + 1), layout="constrained")
    bars = axes.barh(range(len(rivals)), [row["speedup_of_weft"] for row in rivals], color="#0b7a75")
    axes.bar_label(bars, fmt="{:.3g}×", fontsize=7, padding=2)
    axes.set_yticks(range(len(rivals)), [_label(row) for row in rivals], fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xlabel="times as fast as the baseline", xscale="log")
    axes.margins(x=0.15)
    _plain(axes.xaxis, "{:g}×")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _label(row: dict[str, Any]) -> str:
    shape = " ".join(f"{key} {row[key]}" for key in SHAPE if key in row)
    return f"{row['suite']} {row['mode']}, {shape}: {row['provider']}"


def _plain(axis: Any, form: str) -> None:
    """Numbers instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
    axis.set_minor_formatter(NullFormatter())
