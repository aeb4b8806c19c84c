"""Runs without the command line: a recipe as a dictionary, a path or a built-in name, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.train.output.result import Result
from weft.train.recipe.loading import Source, load_recipe
from weft.train.runs.dry_run import dry_run
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute


def train(recipe: Source, overrides: list[str] | None = None, **options: Any) -> Result:
    """Train, score and track one run, as `weft train` does.

    Args:
        recipe: A dictionary, a path or a built-in name.
        overrides: `key.sub=value` entries.
        **options: `resume`, `overwrite`, `auto_resume`, `progress`, and `tasks` for records that are loaded
            already; see `weft.train.runs.run.execute`.

    Returns:
        Scores, counts and the run's folder.

    Raises:
        RecipeError: With every fault of the recipe at once.
        RunError, WeftDataError: What a run refuses before its first step.
    """
    return execute(load_recipe(recipe, overrides), **options)


def look(recipe: Source, overrides: list[str] | None = None) -> Any:
    """What a run would do, as `weft train --dry-run` says: plan, steps, memory, records, first rows.

    Args:
        recipe: As for `train`.
        overrides: As for `train`.

    Raises:
        RecipeError, RunError, WeftDataError: As for `train`.
    """
    return dry_run(load_recipe(recipe, overrides), again=True)


def evaluate(run: Path | str, role: str = "test") -> Result:
    """Score a finished run again, as `weft evaluate` does.

    Args:
        run: Its folder.
        role: `test` or `validation`.

    Raises:
        RunError: If it is not the folder of a finished run.
    """
    return rescore(Path(run), role=role)
