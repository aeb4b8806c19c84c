"""Many runs of one recipe: a grid of values, each with several seeds, every run in a separate process."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from weft.train.engine.checkpoints import latest_checkpoint
from weft.train.errors import RecipeError, RunError
from weft.train.output.folders import RUN_MARKER, claimed, require_made
from weft.train.output.progress import Advance, Progress
from weft.train.output.result import RESULT, is_unscored
from weft.train.output.run_files import as_written, read_id, read_json
from weft.train.preflight.learned import load_learnable
from weft.train.preflight.tasks import roles_of
from weft.train.recipe.files import read_yaml
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.plain_yaml import read_plain_yaml
from weft.train.recipe.training import Recipe
from weft.train.runs.origin import in_words, origin_of, other_data, other_recipe


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        values: Key to value, of the axes of the grid.
        overrides: What the run is started with, after the recipe.
        recipe: The recipe that this makes.
    """

    values: Mapping[str, Any]
    overrides: tuple[str, ...]
    recipe: Recipe


def read_axes(grid: Sequence[str]) -> dict[str, list[Any]]:
    """Read `key.sub=value,value` entries; values are YAML.

    Raises:
        RecipeError: If an entry has no `=` or no value, or a key comes twice.

    >>> read_axes(["seed=0,1", "training.schedule=linear,cosine"])
    {'seed': [0, 1], 'training.schedule': ['linear', 'cosine']}
    """
    axes: dict[str, list[Any]] = {}
    for entry in grid:
        key, separator, text = entry.partition("=")
        try:
            values = read_plain_yaml(f"[{text}]") if separator else []
        except yaml.YAMLError:
            values = []
        if not key or not values or key in axes:
            raise RecipeError(
                f"`--grid` must be `key.sub=value,value` with each key once, but is {entry!r}. Write for instance "
                "training.learning_rate=1e-3,3e-4."
            )
        axes[key] = values
    return axes


def sweep_points(source: str, overrides: Sequence[str], axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the axes, as a run with its own name and label.

    Args:
        source: The recipe, as `load_recipe` takes it.
        overrides: Changes that all runs have.
        axes: Key to its values.

    Raises:
        RecipeError: If a combination is no valid recipe, or two have one name.
    """
    base = load_recipe(source, list(overrides))
    points = []
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        words = [f"{key.rpartition('.')[2]}-{value}" for key, value in values.items()]
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join([base.name, *words]))
        told = [f"{key.rpartition('.')[2]} {value}" for key, value in values.items() if key != "seed"]
        changes = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        changes += [f"name={name}", f"label={json.dumps(', '.join([base.title, *told]))}"]
        every = (*overrides, *changes)
        points.append(Point(values, every, load_recipe(source, list(every))))
    names = [point.recipe.name for point in points]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"The runs of a sweep must have names of their own, but {twice[0]!r} comes twice.")
    return points


def run_sweep(
    source: str,
    overrides: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run every point that has no result yet; a sweep that was interrupted resumes when it is started again.

    What is in the folder of a run counts only for the recipe, data and files that made it. Runs that have a checkpoint
    are resumed, others are started. One that fails does not stop the rest. In MLflow the runs are children of one.

    Args:
        source: The recipe.
        overrides: Changes that all runs have.
        axes: Key to its values; see `read_axes`.
        jobs: Runs at a time.
        overwrite: Start over runs of another recipe or other data.
        progress: Where to show progress.

    Returns:
        One row per point: `values`, `name` and `scores`.

    Raises:
        RecipeError: As `sweep_points`.
        RunError: If folders hold runs of another recipe or other data and `overwrite` is false, or they are not such
            as weft may remove; if runs failed, after all others are done, naming their logs.
    """
    points = sweep_points(source, overrides, axes)
    base = load_recipe(source, list(overrides))
    run_together(source, base, base.name, points, axes, jobs=jobs, overwrite=overwrite, progress=progress)
    rows = []
    for point in points:
        with as_written(point.recipe.folder / RESULT):
            scores = read_json(point.recipe.folder / RESULT)["scores"]
            scores = {str(name): float(score) for name, score in scores.items()}
        rows.append({"values": dict(point.values), "name": point.recipe.name, "scores": scores})
    return rows


def run_together(
    source: str,
    base: Recipe,
    name: str,
    points: Sequence[Point],
    axes: Mapping[str, Sequence[Any]],
    *,
    word: str = "sweep",
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Run points as children of one MLflow run of a name, and refuse to go further if any failed.

    The points differ from `base` in `axes`, and `word` is what this is called: no other process does the same for
    `base` meanwhile. The rest is as for `run_sweep`.

    Raises:
        RunError: As `run_sweep`.
    """
    with claimed(
        Path(base.output) / f"{base.name}.{word}", "name", otherwise="take name=... for another one"
    ):
        start_over = runs_to_start_over(points, overwrite)
        with (
            sweep_parent(base, name, axes) as parent,
            (progress or Progress()).bar(f"{word} {base.name}", len(points)) as advance,
        ):
            failed = run_points(source, points, parent, start_over, jobs=jobs, advance=advance)
    if failed:
        raise RunError(
            f"Every run must end well, but {len(failed)} of {len(points)} did not. Their output is in "
            f"{', '.join(failed)}. Fix the cause and start again: finished runs are kept."
        )


def log_of(recipe: Recipe) -> Path:
    """Where the output of a sweep's run goes."""
    return recipe.folder.with_name(f"{recipe.name}.log")


def run_points(
    source: str,
    points: Sequence[Point],
    parent: str | None,
    start_over: Collection[str],
    *,
    jobs: int = 1,
    advance: Advance = lambda done: None,
) -> list[str]:
    """Run points, and give the logs of those that failed; the rest go on.

    Args:
        source: The recipe.
        points: The points.
        parent: MLflow run that they are part of.
        start_over: Names of runs that are started again, whatever is there.
        jobs: Runs at a time.
        advance: Takes how many are done.
    """
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        ended = pool.map(
            lambda point: run_point(source, point, parent, fresh=point.recipe.name in start_over), points
        )
        for done, (point, well) in enumerate(zip(points, ended, strict=True), start=1):
            failed += [] if well else [str(log_of(point.recipe))]
            advance(done)
    return failed


def runs_to_start_over(points: Sequence[Point], overwrite: bool) -> set[str]:
    """The names of runs whose folders hold what another recipe, other data or other files made.

    Args:
        points: The runs; the data of those that have begun are read.
        overwrite: Whether they may be removed.

    Raises:
        RunError: If there are such and they may not be removed, or are no folders of weft alone.
    """
    found: dict[str, tuple[Path, list[str]]] = {}
    origins: dict[str, dict[str, str]] = {}
    for recipe in (point.recipe for point in points if has_begun(point.recipe.folder)):
        differing = other_recipe(recipe.folder, recipe)
        if not differing:
            values = recipe.model_dump(mode="json", include={"tasks", "backbone"})
            key = json.dumps([values, roles_of(recipe)])
            if key not in origins:
                origins[key] = origin_of(recipe, load_learnable(recipe))
            differing = other_data(recipe.folder, origins[key])
        if differing:
            found[recipe.name] = (recipe.folder, differing)
    if found and not overwrite:
        folder, differing = next(iter(found.values()))
        more = f" (and so are {len(found) - 1} more)" if len(found) > 1 else ""
        raise RunError(
            f"Runs must be those of the recipe and its data, but the one in {folder} is of another{more}: "
            f"{in_words(differing)}. Take name=... for new runs, or --overwrite to start these over."
        )
    for folder, _ in found.values():
        require_made(folder, RUN_MARKER, "name")
    return set(found)


def has_begun(folder: Path) -> bool:
    """Whether a folder holds what would count, or be resumed: scores, trained weights, or a checkpoint."""
    scored = (folder / RESULT).is_file() or is_unscored(folder)
    return scored or latest_checkpoint(folder / "checkpoints") is not None


def run_point(source: str, point: Point, parent: str | None, *, fresh: bool = False) -> bool:
    """Run one point in a separate process; False if it fails.

    Args:
        source: The recipe.
        point: The point.
        parent: MLflow run that it is part of.
        fresh: Start over, whatever is there; it is moved aside first, and then removed.
    """
    folder = point.recipe.folder
    if (folder / RESULT).is_file() and not fresh:
        return True
    words: list[str] = []
    if folder.exists():
        words = ["--resume"] if has_begun(folder) and not fresh else ["--overwrite"]
    if "--resume" in words:
        with as_written(folder / "recipe.yaml"):
            parent = read_yaml(folder / "recipe.yaml")["tracking"]["parent"]
    changes = [*point.overrides, *([f"tracking.parent={parent}"] if parent else [])]
    with log_of(point.recipe).open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "weft.train", source, *changes, "--traceback", *words]
        return subprocess.run(command, stdout=log, stderr=log, check=False).returncode == 0  # noqa: S603  (this Python on the user's own words, without a shell)


@contextmanager
def sweep_parent(base: Recipe, name: str, axes: Mapping[str, Sequence[Any]]) -> Iterator[str | None]:
    """The MLflow run that the runs of the sweep are part of, made once and resumed later."""
    if not base.tracking.enabled:
        yield None
        return
    from weft.eval.tracking import open_run
    from weft.train.runs.tracked import tracking_store

    note = Path(base.output) / f"{name}.sweep"
    with open_run(
        store=tracking_store(base),
        experiment=base.tracking.experiment,
        name=f"{name} sweep",
        params={key: ", ".join(map(str, values)) for key, values in axes.items()},
        run_id=read_id(note) if note.is_file() else None,
    ) as run:
        if run.run_id is not None:
            note.write_text(run.run_id, encoding="utf-8")
        yield run.run_id
