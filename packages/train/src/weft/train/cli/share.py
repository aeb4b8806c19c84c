"""`weft share`: what the tasks of a recipe can share."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.train.cli import console
from weft.train.cli.console import Overrides, RecipeArgument


def share(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps trained first, all shared; by default 4 % of the recipe's."),
    ] = None,
    batches: Annotated[
        int | None,
        typer.Option(
            min=4, help="Batches that gradients are taken on; by default 3 % of the steps, at least 14."
        ),
    ] = None,
    trained: Annotated[
        str | None, typer.Option(help="Greatest share of trained parameters of the policy, such as 5%.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Greatest number of slots, each of a part in a layer.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew what was begun with other values.")
    ] = False,
) -> None:
    """Measure what tasks can share, and propose a sharing policy; started again, it resumes."""
    from weft.train.runs.share.command import read_limit
    from weft.train.runs.share.command import share as run

    found = run(
        recipe,
        overrides or [],
        steps=steps,
        batches=batches,
        limit=read_limit(trained, slots),
        overwrite=overwrite,
        progress=console.progress(),
    )
    console.show(found.text)
