"""The VL-Adapter comparison in miniature: every method on the same four tasks, side by side."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from weft.eval.compare import Comparison, pareto_plot, to_csv, to_terminal
from weft.eval.evaluate.kinds import metric_of
from weft.eval.evaluate.scoring import blind_majority, majority, score
from weft.eval.tracking import runs_page, ui_command
from weft.train.errors import RunError, near
from weft.train.output.folders import DEMO_MARKER, check_writable, claimed, make_fresh
from weft.train.preflight.tasks import TaskData, load_tasks
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe

# The order of the table: what is compared with, what trains everything, then from many weights to few.
METHODS = (
    "frozen",
    "full_finetuning",
    "multiple_adapters",
    "half_shared_adapters",
    "single_adapter",
    "single_compacter",
    "single_lora",
    "image_zeroed",
)

_drawn: dict[str, dict[str, TaskData]] = {}


def run_demo(
    output: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    only: list[str] | None = None,
    jobs: int | None = None,
    changes: list[str] | None = None,
) -> Comparison:
    """Run every method, print the table, draw the plot, and say how to open the MLflow UI.

    Args:
        output: Folder of the runs. Replaced if an earlier demo made it.
        seed: Seed of every run.
        steps: Steps of every run, instead of the recipes' own.
        only: Methods to run; by default all.
        jobs: Runs at a time.
        changes: `key.sub=value` overrides of every recipe.

    Returns:
        The comparison that was printed.

    Raises:
        RunError: If a method is unknown, or the folder holds something else.
    """
    started = time.perf_counter()
    recipes = [_recipe(name, output, seed, steps, changes or []) for name in _chosen(only)]
    with claimed(output, "--output", otherwise="name another folder"):
        return _demo(recipes, output, jobs or min(os.cpu_count() or 1, 4), started)


def _demo(recipes: list[Recipe], output: Path, jobs: int, started: float) -> Comparison:
    """Run the recipes, and print and draw what came out."""
    _clear(output)
    say(f"{len(recipes)} methods on 4 tasks; features first, then the runs.")
    # One thread a run: results do not depend on the number of cores, and small matrices gain nothing from more.
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        store = pool.submit(_make_store, recipes[0])
        features = pool.submit(_prepare, recipes[0])
        waiting: dict[Future[dict[str, Any]], Recipe] = {}
        # Runs that see no image need not wait for features; the quickest come last, so that no core is left idle.
        for recipe in sorted(recipes, key=lambda recipe: (not recipe.blank_images, -recipes.index(recipe))):
            store.result()
            if not recipe.blank_images:
                features.result()
            waiting[pool.submit(_run, recipe)] = recipe
        tasks = _tasks(recipes[0])
        for done in as_completed(waiting):
            recipe = waiting[done]
            row = rows[recipe.name] = done.result()
            say(f"{recipe.title}: average {mean(row['scores'].values()):.1f} in {row['seconds']:.0f} s")
    baselines = blind_rows(tasks, recipes[0])
    comparison = Comparison.from_rows([*baselines, *(rows[recipe.name] for recipe in recipes)])
    sys.stdout.write(to_terminal(comparison) + "\n")
    pareto_plot(comparison, output / "pareto.png")
    (output / "comparison.csv").write_text(to_csv(comparison), encoding="utf-8")
    say(
        f"Plot: {output / 'pareto.png'}. All in {time.perf_counter() - started:.0f} s. The runs in the MLflow UI:"
    )
    say(f"  {ui_command(output / 'mlflow')}")
    say(f"  {runs_page(output / 'mlflow', recipes[0].tracking.experiment)}")
    return comparison


def blind_rows(tasks: dict[str, TaskData], recipe: Recipe) -> list[dict[str, Any]]:
    """Rows of what needs no image: the majority answer, and the majority of each question template."""
    rows = []
    for label, answer in (("majority answer", majority), ("blind majority per template", blind_majority)):
        scores = {}
        for name, data in tasks.items():
            section, test = recipe.tasks[name], data["test"]
            metric = section.metric or metric_of(test)
            scores[name] = score(metric, answer(data["train"], test), test, headline=section.headline).percent
        method = label.replace(" ", "_")
        rows.append(
            {"method": method, "label": label, "seed": recipe.seed, "scores": scores, "control": True}
        )
    return rows


def _chosen(only: list[str] | None) -> list[str]:
    shipped = [name.removeprefix("demo/") for name in built_in_recipes() if name.startswith("demo/")]
    names = [name for name in METHODS if name in shipped] if only is None else only
    for name in names:
        if name not in shipped:
            raise RunError(f"`--only` must name a method of the demo, but is {name!r}. {near(name, shipped)}")
    return names


def _recipe(name: str, output: Path, seed: int, steps: int | None, changes: list[str]) -> Recipe:
    own = [f"output={output}", f"seed={seed}", f"tracking.store={(output / 'mlflow').absolute()}"]
    own += [] if steps is None else [f"training.steps={steps}"]
    return load_recipe(f"demo/{name}", [*own, *changes])


def _clear(output: Path) -> None:
    check_writable(output, "--output")
    if output.is_dir() and not any(output.iterdir()):
        (output / DEMO_MARKER).touch()
        return
    if output.exists() and not (output / DEMO_MARKER).exists():
        raise RunError(
            f"`--output` must be a new folder or that of an earlier demo, but {output} holds other files."
        )
    make_fresh(output, DEMO_MARKER, "--output")


def _tasks(recipe: Recipe) -> dict[str, TaskData]:
    """The records of a recipe; drawn once in a process, since every method of the demo learns the same tasks."""
    key = json.dumps({name: task.model_dump(mode="json") for name, task in recipe.tasks.items()})
    if key not in _drawn:
        _drawn[key] = load_tasks(recipe)
    return _drawn[key]


def _make_store(recipe: Recipe) -> None:
    """Make the store before runs beside one another would."""
    from weft.train.runs.tracked import check_tracking

    check_tracking(recipe)


def _prepare(recipe: Recipe) -> None:
    """Extract the features that runs share."""
    from weft.train.runs.run import prepare_features

    prepare_features(recipe, _tasks(recipe))


def _run(recipe: Recipe) -> dict[str, Any]:
    from weft.train.runs.run import execute

    result = execute(recipe, tasks=_tasks(recipe))
    return {
        "method": recipe.name,
        "label": recipe.title,
        "seed": recipe.seed,
        "trainable": result.trainable,
        "total": result.total,
        "scores": {name: value for name, value in result.scores.items() if name != "average"},
        "seconds": result.seconds,
        "control": recipe.control,
    }


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
