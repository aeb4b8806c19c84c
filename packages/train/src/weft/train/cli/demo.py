"""`weft demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes to every recipe.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the runs; an earlier demo there is replaced.")
    ] = Path("weft-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all runs.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of every run, instead of the recipes' own.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run only these methods (may be repeated).")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one per core, at most 4.")
    ] = None,
) -> None:
    """Compare the ways of sharing weights in miniature: offline, in minutes, on a CPU."""
    from weft.train.runs.demo import run_demo

    run_demo(output, seed=seed, steps=steps, only=only, jobs=jobs, changes=overrides)
