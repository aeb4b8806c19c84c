"""Confirming: the best policies and the presets as short runs, side by side, scored on the validation splits alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.core import plan
from weft.core.errors import WeftError
from weft.eval.compare import Comparison, pareto_plot, significance, to_csv, to_terminal
from weft.eval.report import tables_in
from weft.train.backbones.loading import planned_model
from weft.train.engine.schedule import make_mixture, total_steps
from weft.train.errors import RecipeError
from weft.train.output.files import written
from weft.train.output.progress import Progress
from weft.train.output.result import RESULT
from weft.train.output.run_files import as_written, read_json
from weft.train.preflight.tasks import load_tasks, sizes_of
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.sweep import Point, run_together

PRESETS = ("single", "half", "multiple")
_SHORT = 0.25  # of the recipe's steps


def confirm(
    source: str,
    overrides: Sequence[str],
    policies: Sequence[Any],
    folder: Path,
    *,
    seeds: int = 3,
    steps: int | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Train policies and presets for a while, with several seeds each, and compare them.

    Test splits are not opened: each task's validation split takes their place. In MLflow the runs are children of
    one. Into the folder go `confirm.csv` and `confirm.png`, score against trained parameters.

    Args:
        source: The recipe.
        overrides: Changes to it.
        policies: Methods that differ in their sharing, the best first.
        folder: Where the comparison is written.
        seeds: Number of seeds.
        steps: Steps of each run; by default a quarter of the recipe's.
        jobs: Runs at a time.
        overwrite: Start over what was made with other values.
        progress: Where to show progress.

    Returns:
        The comparison, with marks of what differs from the first policy by more than chance (paired test).

    Raises:
        RecipeError: If a task has no validation split.
        RunError: If runs failed.
    """
    base = load_recipe(source, list(overrides))
    points = confirm_points(source, overrides, policies, seeds=seeds, steps=steps)
    axes = {
        "sharing": list(dict.fromkeys(point.values["sharing"] for point in points)),
        "seed": [*range(seeds)],
    }
    run_together(
        source,
        base,
        f"{base.name}-confirm",
        points,
        axes,
        word="confirm",
        jobs=jobs,
        overwrite=overwrite,
        progress=progress,
    )
    compared = _compared(points)
    with written(folder / "confirm.csv", "output") as partial:
        partial.write_text(to_csv(compared), encoding="utf-8")
    with written(folder / "confirm.png", "output") as partial:
        pareto_plot(compared, partial)
    return to_terminal(compared)


def confirm_points(
    source: str, overrides: Sequence[str], policies: Sequence[Any], *, seeds: int, steps: int | None = None
) -> list[Point]:
    """The runs of `confirm`: every policy, and every preset that the method takes, with every seed.

    Raises:
        RecipeError: If a task has no validation split.
    """
    base = load_recipe(source, list(overrides))
    short = steps or max(
        1, round(_SHORT * total_steps(base, make_mixture(base, sizes_of(load_tasks(base, ("train",))))))
    )
    changes = [
        f"training.steps={short}",
        "training.epochs=null",
        "training.evaluate_every=0",
        "training.patience=0",
    ]
    changes += [change for name, task in base.tasks.items() for change in _validated(name, task.data)]
    methods = {f"policy {place}": method for place, method in enumerate(policies, start=1)}
    methods |= {preset: method for preset in PRESETS if (method := _with_preset(base, preset)) is not None}
    points = []
    for label, method in methods.items():
        for seed in range(seeds):
            own = [
                f"method={json.dumps(method)}",
                f"name={base.name}-confirm-{label.replace(' ', '-')}-{seed}",
                f"label={json.dumps(label)}",
                f"seed={base.seed + seed}",
            ]
            every = (*overrides, *changes, *own)
            points.append(Point({"sharing": label, "seed": seed}, every, load_recipe(source, list(every))))
    return points


def _validated(name: str, data: Any) -> list[str]:
    """Changes that put a task's validation split in the place of its test split."""
    front = f"tasks.{name}.data"
    if data.validation is None:
        raise RecipeError(
            f"`--confirm` needs `{front}.validation`, because nothing is chosen on test data, but there is none. Name "
            "a validation split."
        )
    sizes = {key: size for key, size in data.sizes.items() if key != "test"}
    if "validation" in sizes:
        sizes["test"] = sizes["validation"]
    return [
        f"{front}.test={data.validation}",
        f"{front}.validation=null",
        f"{front}.sizes={json.dumps(sizes)}",
    ]


def _with_preset(base: Recipe, preset: str) -> Any:
    """The recipe's method with a preset, or None where a unit does not take it."""
    given = base.method if isinstance(base.method, list) else [base.method]
    words = [{**one, "sharing": preset} for one in given]
    method = words if isinstance(base.method, list) else words[0]
    try:
        plan(planned_model(base.backbone), method, list(base.tasks))
    except WeftError:
        return None
    return method


def _compared(points: Sequence[Point]) -> Comparison:
    rows: list[Mapping[str, Any]] = []
    tables = {}
    for point in points:
        folder, label = point.recipe.folder, point.values["sharing"]
        with as_written(folder / RESULT):
            values = read_json(folder / RESULT)
            row = {key: values[key] for key in ("trainable", "total", "seconds")}
            scores = {task: score for task, score in values["scores"].items() if task != "average"}
        own = {"method": label, "label": label, "seed": point.recipe.seed, "run_id": point.recipe.name}
        rows.append({**own, **row, "scores": scores})
        tables[point.recipe.name] = tables_in(folder / "predictions")
    compared = Comparison.from_rows(rows, "on validation splits")
    first = rows[0]["method"]
    return compared.with_marks(significance(compared, first, tables), first)
