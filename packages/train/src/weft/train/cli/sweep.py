"""`weft sweep`: many runs of one recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weft.train.cli.console import Overrides, RecipeArgument, progress, show
from weft.train.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from weft.train.runs.search import Trial


def sweep(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="An axis, such as training.learning_rate=1e-3,3e-4 (may be repeated)."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every combination, comma-separated.")] = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over runs of another recipe or other data.")
    ] = False,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A range for Optuna, such as training.learning_rate=1e-4..1e-2:log (may be repeated)."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="With --search: sets of values that are tried.")] = 20,
) -> None:
    """Run a recipe over a grid of values and seeds, or search; started again, it resumes where it was interrupted."""
    from rich.console import Console

    from weft.train.recipe.loading import load_any
    from weft.train.runs.sweep import read_axes, run_sweep
    from weft.train.runs.tracked import where_to_look

    how: dict[str, Any] = {"jobs": jobs, "overwrite": overwrite, "progress": progress()}
    if search:
        if grid:
            raise RecipeError(
                "`--grid` must be left out with `--search`, but both are given. Take one of them."
            )
        from weft.train.runs.search import read_ranges, run_search

        own = read_axes([f"seed={seeds}"])["seed"]
        found = run_search(recipe, overrides or [], read_ranges(search), trials=trials, seeds=own, **how)
        table = _trials(found)
    else:
        axes = read_axes([*(grid or []), f"seed={seeds}"])
        table = _points(run_sweep(recipe, overrides or [], axes, **how))
    Console(markup=False, emoji=False).print(table)
    show(where_to_look(load_any(recipe, overrides)))


def _trials(found: Sequence[Trial]) -> Table:
    """The trials of a search, the best in bold."""
    from rich.table import Table

    table = Table("trial", *(key.rpartition(".")[2] for key in found[0].values), "validation")
    best = max((trial.validation, -trial.number) for trial in found if trial.validation is not None)
    for trial in found:
        score = "failed" if trial.validation is None else f"{trial.validation:.2f}"
        style = "bold" if -trial.number == best[1] else None
        table.add_row(str(trial.number), *map(str, trial.values.values()), score, style=style)
    return table


def _points(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The scores of every run of a grid."""
    from rich.table import Table

    tasks = list(rows[0]["scores"])
    table = Table(*(key.rpartition(".")[2] for key in rows[0]["values"]), *tasks)
    for row in rows:
        scores = [f"{row['scores'][task]:.2f}" for task in tasks]
        table.add_row(*(str(value) for value in row["values"].values()), *scores)
    return table
