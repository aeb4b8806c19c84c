"""Whether a recipe's model, method and tasks fit together, found out before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from weft.core import plan
from weft.eval.evaluate.predict import unfit
from weft.train.backbones import planned_model
from weft.train.errors import RunError
from weft.train.recipe import Recipe
from weft.train.task_data import TaskData


def check_fit(recipe: Recipe, tasks: Mapping[str, TaskData]) -> None:
    """Refuse tasks that the backbone cannot do, and saving a model whose training is not in its own weights.

    Args:
        recipe: The recipe.
        tasks: Its records.

    Raises:
        RunError: With the first fault.
    """
    model = planned_model(recipe.backbone)
    for name, data in tasks.items():
        reason = unfit(model, next(iter(data.splits.values())))
        if reason is not None:
            raise RunError(
                f"`backbone` must be able to do task {name!r}, but {reason}. Take another backbone, or "
                "another type of record: see `weft data show`."
            )
    if recipe.save_model:
        units = plan(model, recipe.method, list(recipe.tasks)).units
        if units:
            raise RunError(
                f"`save_model` must be false where the method has units, but this one has {len(units)}: their "
                "weights lie in the run's adapter, not in the model. Leave it out, or train with `method: full`."
            )
