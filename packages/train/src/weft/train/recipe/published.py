"""What others printed for the method of a recipe, beside which its own scores are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weft.train.errors import RecipeError, near
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.training import Recipe

if TYPE_CHECKING:
    from weft.eval.compare.row import Row


def published_of(recipe: Recipe | FewShotRecipe) -> list[Row]:
    """Rows of the recipe's table of published numbers that are of its method.

    Its label names them, or, if it is of the few-shot kind, the methods of its heads.

    Returns:
        The rows, of the recipe's tasks or data sets alone; none where the recipe names no table.

    Raises:
        RecipeError: There is no such table.
    """
    if recipe.published is None:
        return []
    from weft.eval.compare.published import published_rows, published_tables

    tables = published_tables()
    if recipe.published not in tables:
        raise RecipeError(
            f"`published` must be one of {', '.join(tables)}, but is {recipe.published!r}. "
            f"{near(recipe.published, tables)}"
        )
    rows = published_rows(recipe.published)
    if isinstance(recipe, FewShotRecipe):
        methods = {head["method"] for head in recipe.heads}
        tasks = {part.data.name for part in recipe.parts().values()}
        return _with_scores([row for row in rows if row.method.rpartition("/")[2] in methods], tasks)
    return _with_scores([row for row in rows if row.label == recipe.title], recipe.tasks)


def _with_scores(rows: Iterable[Row], tasks: Iterable[str]) -> list[Row]:
    kept = [
        replace(row, scores={task: score for task, score in row.scores.items() if task in tasks})
        for row in rows
    ]
    return [row for row in kept if row.scores]


def shown(rows: Sequence[Row]) -> list[str]:
    """One line for each row: its scores, its trained share, where it was printed."""
    lines = []
    for row in rows:
        scores = ", ".join(f"{task} {score:g}" for task, score in row.scores.items())
        share = "" if row.percent is None else f" ({row.percent:g} % trained)"
        lines.append(f"{row.label}: {scores}{share}; {row.published}")
    return lines


def scored_alike(recipe: Recipe, reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each task whose published rows come from another metric: the run's own score by that metric."""
    return [
        f"{name} by {task.published_metric}, which published rows come from: "
        f"{reports[name]['scores'][task.published_metric]:.2f} (this run)"
        for name, task in recipe.tasks.items()
        if task.published_metric is not None
        and task.published_metric in reports.get(name, {}).get("scores", {})
    ]
