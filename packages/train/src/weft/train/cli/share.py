"""`weft share`: what the tasks of a recipe can share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from weft.train.cli import console
from weft.train.cli.console import Overrides, RecipeArgument

if TYPE_CHECKING:
    from weft.train.runs.share.command import Shared

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

    limit, changes = read_limit(trained, slots), overrides or []
    if confirm is not None:
        from weft.train.runs.share.confirm import confirm_points

        confirm_points(
            recipe, changes, [], seeds=1, steps=1
        )  # for its complaints, before anything is measured
    how = {"steps": steps, "batches": batches}
    found = run(recipe, changes, **how, limit=limit, overwrite=overwrite, progress=console.progress())
    console.show(found.text)
    if confirm is not None and console.is_first():
        how = {"seeds": seeds, "steps": confirm_steps, "jobs": jobs}
        console.show(_confirmed(recipe, changes, found, confirm, how, overwrite=overwrite))


def _confirmed(
    recipe: str,
    changes: Sequence[str],
    found: Shared,
    count: int,
    how: dict[str, int | None],
    *,
    overwrite: bool,
) -> str:
    """What short runs of the best policies and of the presets gave."""
    from weft.train.runs.share.confirm import confirm

    told = confirm(
        recipe,
        changes,
        found.policies[:count],
        found.measured.folder,
        seeds=how["seeds"] or 1,
        steps=how["steps"],
        jobs=how["jobs"] or 1,
        overwrite=overwrite,
        progress=console.progress(),
    )
    return f"\n{told}\n"
