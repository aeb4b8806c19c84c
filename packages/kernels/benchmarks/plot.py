"""Roofline and speed-up plots of benchmark rows."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def draw(rows: list[dict[str, Any]], ceilings: dict[str, float], folder: pathlib.Path) -> None:
    """Write ``roofline.png`` and ``speedup.png`` to `folder`."""
    _roofline(rows, ceilings, folder / "roofline.png")
    _speedup(rows, folder / "speedup.png")


def _roofline(rows: list[dict[str, Any]], ceilings: dict[str, float], file: pathlib.Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 5))
    copy, gemm = ceilings["copy_gbps"] / 1e3, ceilings["gemm_tflops"]
    intensities = [2.0**power for power in range(-3, 12)]
    axes.plot(
        intensities, [min(gemm, copy * value) for value in intensities], color="black", label="measured roof"
    )
    for suite in sorted({row["suite"] for row in rows}):
        points = [row for row in rows if row["suite"] == suite and row["provider"] == "weft"]
        speeds = [row["percent_gemm_roof"] / 100 * gemm for row in points]
        bandwidths = [row["percent_copy_roof"] / 100 * copy for row in points]
        pairs = zip(speeds, bandwidths, strict=True)
        axes.scatter([speed / max(band, 1e-9) for speed, band in pairs], speeds, label=suite, s=18)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOP/s")
    axes.legend()
    figure.savefig(file, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def _speedup(rows: list[dict[str, Any]], file: pathlib.Path) -> None:
    rivals = [row for row in rows if row["provider"] not in ("weft", "one-task")]
    figure, axes = pyplot.subplots(figsize=(8, 0.3 * len(rivals) + 1.5))
    labels = [f"{row['suite']} {row['mode']} vs {row['provider']}" for row in rivals]
    axes.barh(range(len(rivals)), [row["speedup_of_weft"] for row in rivals])
    axes.set_yticks(range(len(rivals)), labels, fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xlabel="times as fast as the baseline", xscale="log")
    figure.savefig(file, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
