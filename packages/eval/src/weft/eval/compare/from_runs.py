"""What the page of a comparison takes from its runs besides scores: learning curves and example predictions."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.eval.compare.comparison import Comparison
from weft.eval.compare.html import to_html
from weft.eval.compare.plots import learning_curves, method_colours
from weft.eval.compare.row import Row
from weft.eval.errors import FormatError
from weft.eval.report.predictions import PredictionTable
from weft.eval.report.run_tables import tables_of_run
from weft.eval.tracking.store import client, store_uri


def read_curves(
    store: Path | str | None, comparison: Comparison, metric: str = "train/loss"
) -> dict[str, list[tuple[int, float]]]:
    """A metric of every run of a comparison, step by step.

    Args:
        store: The store of the runs.
        comparison: The comparison; its rows name their runs.
        metric: Name of the metric.

    Returns:
        Label (with the seed, where a method has several) to points `(step, value)`; runs without it are left out.
    """
    mlflow_client = client(store_uri(store))
    found: dict[str, list[tuple[int, float]]] = {}
    for row in comparison.rows:
        history = [] if row.run_id is None else mlflow_client.get_metric_history(row.run_id, metric)
        # Stores keep an infinite value as the largest number, which no axis holds.
        points = [(one.step, one.value) for one in history if not abs(one.value) >= sys.float_info.max]
        if points:
            found[_run_label(comparison, row)] = points
    return found


def curve_colours(comparison: Comparison) -> dict[str, str]:
    """The colour of each curve that `read_curves` gives: that of its method in every other picture."""
    methods = method_colours(comparison)
    return {
        _run_label(comparison, row): methods[comparison.entry(row.method).label] for row in comparison.rows
    }


def _run_label(comparison: Comparison, row: Row) -> str:
    several = len(comparison.entry(row.method).seeds) > 1
    return f"{row.label}, seed {row.seed}" if several else row.label


def example_rows(tables: Mapping[str, PredictionTable], per_task: int = 4) -> list[dict[str, Any]]:
    """A few predictions of every task with their pictures, half of them wrong where there are wrong ones.

    Args:
        tables: Task to table.
        per_task: How many of each task; the rows are for `to_html(examples=…)`.
    """
    rows: list[dict[str, Any]] = []
    for task, table in tables.items():
        seen = [row for row in table.rows if row.pictures] or list(table.rows)
        wrong = [row for row in seen if row.score < table.best][: per_task // 2]
        right = [row for row in seen if row.score >= table.best][: per_task - len(wrong)]
        for row in right + wrong:
            shown: dict[str, Any] = {"task": task}
            for place, name in enumerate(row.pictures, start=1):
                assert table.folder is not None, "a table with pictures has a folder"
                shown["picture" if place == 1 else f"picture {place}"] = (table.folder / name).read_bytes()
            answers = " / ".join(row.references[:3])
            shown |= {"question": row.question, "predicted": row.prediction, "right": answers}
            rows.append(shown | {"score": f"{row.score:.2f} of {table.best:g}"})
    return rows


def page_from_runs(store: Path | str | None, comparison: Comparison) -> str:
    """The whole page of a comparison that was read from a store: table, plots, curves, and examples of the best method.

    What the runs did not keep is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        points, path = read_curves(store, comparison), Path(folder) / "curves.png"
        curves = learning_curves(points, path, colours=curve_colours(comparison)) if points else None
        examples = _examples(store, comparison, Path(folder))
        return to_html(comparison, examples=examples, curves=curves)


def _examples(store: Path | str | None, comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    ours = [(entry.average.mean, entry) for entry in comparison.entries if entry.average and entry.competes]
    if not ours:
        return []
    _, best = max(ours, key=lambda one: one[0])
    run_id = next(row.run_id for row in comparison.rows if row.method == best.method)
    if run_id is None:
        return []
    try:
        tables = tables_of_run(store, run_id, download=folder)
    except FormatError:
        # Runs of earlier versions kept no tables; the page says nothing about predictions then.
        return []
    return [{"method": best.label, **row} for row in example_rows(tables)]
