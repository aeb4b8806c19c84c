"""`weft sweep`: many runs of one recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.train.cli.runs import Overrides, RecipeArgument


def sweep(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="An axis, such as training.learning_rate=1e-3,3e-4 (may be repeated)."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every combination, parted by commas.")] = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
) -> None:
    """Run a recipe over a grid of values and seeds; started again, it goes on where it was interrupted."""
    from rich.console import Console
    from rich.table import Table

    from weft.train.cli.console import progress
    from weft.train.sweep import read_axes, run_sweep

    axes = read_axes([*(grid or []), f"seed={seeds}"])
    rows = run_sweep(recipe, overrides or [], axes, jobs=jobs, progress=progress())
    tasks = list(rows[0]["scores"])
    table = Table(*(key.rpartition(".")[2] for key in axes), *tasks)
    for row in rows:
        scores = [f"{row['scores'][task]:.2f}" for task in tasks]
        table.add_row(*(str(value) for value in row["values"].values()), *scores)
    Console().print(table)
