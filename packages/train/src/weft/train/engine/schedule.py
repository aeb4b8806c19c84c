"""Which batches a run draws, and how many steps it takes."""

from __future__ import annotations

from collections.abc import Mapping

from weft.data.sampling.mixing import TaskMixture
from weft.train.recipe.training import Recipe


def make_mixture(
    recipe: Recipe, sizes: Mapping[str, int], *, rank: int = 0, world_size: int = 1
) -> TaskMixture:
    """The batches of a recipe; the same over all processes together, however many there are.

    Args:
        recipe: The recipe.
        sizes: Task to its number of training records.
        rank: This process.
        world_size: Number of processes, which divides every batch size.

    Raises:
        InvalidArgumentError: If it does not.
    """
    training, mixing = recipe.training, recipe.training.mixing
    own = {name: task.batch_size or training.batch_size for name, task in recipe.tasks.items()}
    return TaskMixture(
        sizes,
        **dict(mixing),  # its keys are arguments
        batch_size=training.batch_size if mixing.unit == "mixed" else own,
        seed=recipe.seed,
        last="fill" if mixing.strategy == "proportional" and mixing.caps is None else "short",
        rank=rank,
        world_size=world_size,
    )


def total_steps(recipe: Recipe, mixture: TaskMixture) -> int:
    """Optimiser steps of a run."""
    section = recipe.training
    return section.steps or (section.epochs or 1) * -(-len(mixture) // section.accumulation)
