"""`weft sweep`: many runs of one recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.train.cli.console import Overrides, RecipeArgument


def sweep(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="An axis, such as training.learning_rate=1e-3,3e-4 (may be repeated)."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every combination, parted by commas.")] = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A range for Optuna, such as training.learning_rate=1e-4..1e-2:log (may be repeated)."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="With --search: sets of values that are tried.")] = 20,
) -> None:
    """Run a recipe over a grid of values and seeds, or search; started again, it goes on where it was interrupted."""
    from rich.console import Console
    from rich.table import Table

    from weft.train.cli.console import progress
    from weft.train.errors import RecipeError
    from weft.train.runs.sweep import read_axes, run_sweep

    if search:
        if grid:
            raise RecipeError(
                "`--grid` must be left out with `--search`, but both are given. Take one of them."
            )
        from weft.train.runs.search import read_ranges, run_search

        own = read_axes([f"seed={seeds}"])["seed"]
        ranges = read_ranges(search)
        found = run_search(
            recipe, overrides or [], ranges, trials=trials, seeds=own, jobs=jobs, progress=progress()
        )
        table = Table("trial", *(key.rpartition(".")[2] for key in ranges), "validation")
        best = max((trial.validation, -trial.number) for trial in found if trial.validation is not None)
        for trial in found:
            score = "failed" if trial.validation is None else f"{trial.validation:.2f}"
            style = "bold" if -trial.number == best[1] else None
            table.add_row(str(trial.number), *map(str, trial.values.values()), score, style=style)
        Console(markup=False, emoji=False).print(table)
        return
    axes = read_axes([*(grid or []), f"seed={seeds}"])
    rows = run_sweep(recipe, overrides or [], axes, jobs=jobs, progress=progress())
    tasks = list(rows[0]["scores"])
    table = Table(*(key.rpartition(".")[2] for key in axes), *tasks)
    for row in rows:
        scores = [f"{row['scores'][task]:.2f}" for task in tasks]
        table.add_row(*(str(value) for value in row["values"].values()), *scores)
    Console(markup=False, emoji=False).print(table)
