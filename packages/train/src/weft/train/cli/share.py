"""`weft share`: what the tasks of a recipe can share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from weft.train.cli import console
from weft.train.cli.console import Overrides, RecipeArgument

Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Steps trained first, all shared; by default 4 % of the recipe's."),
]
Batches = Annotated[
    int | None,
    typer.Option(
        min=4, help="Batches that gradients are taken on; by default 3 % of the steps, at least 14."
    ),
]
Trained = Annotated[
    str | None, typer.Option(help="Maximum share of trained parameters of the policy, such as 5%.")
]
Slots = Annotated[int | None, typer.Option(min=1, help="Maximum number of slots, each of a part in a layer.")]
Confirm = Annotated[
    int | None,
    typer.Option(min=1, help="Also train this many of the best policies, and the presets, briefly."),
]
ConfirmSteps = Annotated[
    int | None,
    typer.Option(min=1, help="With --confirm: steps of each run; by default 1/4 of the recipe's."),
]


def share(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    steps: Steps = None,
    batches: Batches = None,
    trained: Trained = None,
    slots: Slots = None,
    confirm: Confirm = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --confirm: seeds of each.")] = 3,
    confirm_steps: ConfirmSteps = None,
    jobs: Annotated[int, typer.Option(min=1, help="With --confirm: runs at a time.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over what was begun with other values.")
    ] = False,
) -> None:
    """Measure what tasks can share, and propose a sharing policy; started again, it resumes."""
    from weft.train.runs.share.command import read_limit
    from weft.train.runs.share.command import share as run
    from weft.train.runs.share.confirm import confirm as confirmed
    from weft.train.runs.share.confirm import confirm_points

    limit, changes = read_limit(trained, slots), overrides or []
    if confirm is not None:
        # For its complaints, before anything is measured.
        confirm_points(recipe, changes, [], seeds=1, steps=1)
    how: dict[str, Any] = {"overwrite": overwrite, "progress": console.progress()}
    found = run(recipe, changes, steps=steps, batches=batches, limit=limit, **how)
    console.show(found.text)
    if confirm is not None and console.is_first():
        how |= {"seeds": seeds, "steps": confirm_steps, "jobs": jobs, "progress": console.progress()}
        told = confirmed(recipe, changes, found.policies[:confirm], found.measured.folder, **how)
        console.show(f"\n{told}\n")
