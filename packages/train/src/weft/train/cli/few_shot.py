"""`weft train` for few-shot recipes."""

from __future__ import annotations

import sys

from weft.train.errors import RunError
from weft.train.recipe.few_shot import FewShotRecipe


def train_few_shot(recipe: FewShotRecipe, *, resume: bool, overwrite: bool) -> None:
    """Run a few-shot recipe and print its table.

    Args:
        recipe: The recipe.
        resume: Refused: heads take seconds, and features are kept anyway.
        overwrite: Remove an earlier run of this name.

    Raises:
        RunError: `resume` is asked for.
    """
    if resume:
        raise RunError(
            "`--resume` is for runs with checkpoints, but this few-shot recipe has none. Use --overwrite; features "
            "that were extracted are found again."
        )
    from weft.train.cli.console import progress
    from weft.train.recipe.published import published_of, shown
    from weft.train.runs.few_shot.run import execute_few_shot

    published = shown(published_of(recipe))
    comparison = execute_few_shot(recipe, overwrite=overwrite, progress=progress())
    sys.stdout.write(comparison.text())
    sys.stdout.writelines(f"Published: {line}\n" for line in published)
    sys.stdout.write(f"Plot: {comparison.folder / 'accuracy.png'}. Heads: {comparison.folder / 'heads'}\n")
