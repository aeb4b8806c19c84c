"""`weft plan`, `weft train` and `weft evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a built-in name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes to the recipe.")
]


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data.")] = False,
) -> None:
    """Count trainable and total parameters, by component, without any weights."""
    from weft.train.recipe.few_shot import few_shot_recipe
    from weft.train.recipe.training import load_recipe

    few_shot = few_shot_recipe(recipe, overrides)
    if few_shot is not None:
        from weft.train.runs.few_shot.plan import plan_few_shot

        planned_heads = plan_few_shot(few_shot)
        text = json.dumps(planned_heads.to_dict(), indent=2) if as_json else str(planned_heads)
        sys.stdout.write(text + "\n")
        return

    loaded = load_recipe(recipe, overrides)
    from weft.core import plan as plan_of
    from weft.train.backbones.loading import planned_model

    planned = plan_of(planned_model(loaded.backbone), loaded.method, list(loaded.tasks))
    text = json.dumps(planned.to_dict(), indent=2) if as_json else str(planned)
    sys.stdout.write(text + "\n")


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier run of this name.")
    ] = False,
    auto_resume: Annotated[
        bool,
        typer.Option("--auto-resume", help="Go on if there is a whole checkpoint, otherwise start."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only check everything, and show plan, steps, memory and first batch."
        ),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="With --dry-run: where the first batch is drawn, as PNG.")
    ] = None,
) -> None:
    """Train, evaluate and track one run."""
    from weft.train.preflight.tasks import check_recipe, load_tasks
    from weft.train.recipe.few_shot import few_shot_recipe
    from weft.train.recipe.training import load_recipe

    few_shot = few_shot_recipe(recipe, overrides)
    if dry_run:
        from weft.train.runs.dry_run import dry_run as try_out
        from weft.train.runs.few_shot.dry_run import dry_run_few_shot

        found = (
            try_out(load_recipe(recipe, overrides), picture)
            if few_shot is None
            else dry_run_few_shot(few_shot, picture)
        )
        sys.stdout.write(f"{found}\n")
        return
    if few_shot is not None:
        from weft.train.cli.few_shot import train_few_shot

        train_few_shot(few_shot, resume=resume or auto_resume, overwrite=overwrite)
        return
    loaded = load_recipe(recipe, overrides)
    check_recipe(loaded)
    tasks = load_tasks(loaded)
    from weft.train.cli.console import progress, show_result
    from weft.train.recipe.published import published_of, scored_alike, shown
    from weft.train.runs.run import execute

    published = shown(published_of(loaded))
    result = execute(
        loaded,
        tasks=tasks,
        resume=resume,
        overwrite=overwrite,
        auto_resume=auto_resume,
        progress=progress(),
    )
    show_result(result, [*published, *scored_alike(loaded, result.reports)] if published else [])


def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a finished run.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="A predictions file in the benchmark's own format.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="The benchmark's annotation file, with --predictions.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The benchmark, with --predictions.")] = None,
    subset: Annotated[
        bool, typer.Option("--subset", help="Score what was predicted, and say how much is missing.")
    ] = False,
    consistency: Annotated[
        str | None,
        typer.Option(
            help="With --task gqa: 'all' scores every entailed question, 'known' those that the gold file holds."
        ),
    ] = None,
    choices: Annotated[
        Path | None,
        typer.Option(help="With --task gqa: the official choices file, for validity and plausibility."),
    ] = None,
) -> None:
    """Score a run again, or anybody's predictions against official annotations."""
    from weft.train.errors import RunError

    if (run is None) == (predictions is None):
        raise RunError("`weft evaluate` needs either RUN or --predictions, but got both or neither.")
    if run is not None:
        from weft.train.cli.console import progress, show_result

        if (run / "heads").is_dir():
            from weft.train.runs.few_shot.rescore import rescore_few_shot

            sys.stdout.write(rescore_few_shot(run, progress=progress()).text())
            return
        from weft.train.runs.rescore import rescore

        show_result(rescore(run, progress=progress()))
        return
    if gold is None or task is None or predictions is None:
        raise RunError(
            "`--predictions` needs --gold and --task, but one is missing. See `weft evaluate --help`."
        )
    from weft.eval.submissions import score_predictions
    from weft.train.cli.metric_options import metric_options

    options = metric_options(task, consistency=consistency, choices=choices)
    sys.stdout.write(f"{score_predictions(task, predictions, gold, subset=subset, **options)}\n")
