"""`weft plan`, `weft train` and `weft evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.train.cli import console
from weft.train.cli.console import Overrides, RecipeArgument
from weft.train.errors import RunError

_CONSISTENCY = ("off", "known", "all")


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data.")] = False,
) -> None:
    """Count trainable and total parameters, by component, without any weights."""
    from weft.train.recipe.loading import load_any
    from weft.train.runs.kinds import run_of

    planned = run_of(load_any(recipe, overrides)).plan()
    text = json.dumps(planned.to_dict(), indent=2) if as_json else str(planned)
    sys.stdout.write(text + "\n")


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the newest complete checkpoint.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier run of this name.")
    ] = False,
    auto_resume: Annotated[
        bool,
        typer.Option("--auto-resume", help="Resume if there is a complete checkpoint, otherwise start."),
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
    from weft.train.recipe.loading import load_any
    from weft.train.runs.kinds import run_of

    if picture is not None and not dry_run:
        raise RunError("`--picture` must come with --dry-run, but comes alone. Add --dry-run.")
    run = run_of(load_any(recipe, overrides))
    if dry_run:
        sys.stdout.write(f"{run.dry_run(picture, again=resume or overwrite or auto_resume)}\n")
        return
    options = {"resume": resume, "overwrite": overwrite, "auto_resume": auto_resume}
    console.show(run.execute(console.progress(), **options))
    if console.is_first():
        from weft.train.runs.tracked import where_to_look

        console.show(where_to_look(run.recipe))


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
    if (run is None) == (predictions is None):
        raise RunError("`weft evaluate` needs either RUN or --predictions, but got both or neither.")
    if run is not None:
        from weft.train.runs.kinds import rescore_any

        console.show(rescore_any(run, console.progress()))
        return
    if gold is None or task is None or predictions is None:
        raise RunError(
            "`--predictions` needs --gold and --task, but one is missing. See `weft evaluate --help`."
        )
    from weft.eval.submissions import score_predictions

    options = metric_options(task, consistency=consistency, choices=choices)
    sys.stdout.write(f"{score_predictions(task, predictions, gold, subset=subset, **options)}\n")


def metric_options(
    task: str, *, consistency: str | None = None, choices: Path | None = None
) -> dict[str, Any]:
    """What is passed to the metric of a benchmark: for GQA, how entailed questions are scored, and its choices.

    Raises:
        RunError: The benchmark is not GQA, there is no such value, or the file cannot be read.
    """
    given = {"consistency": consistency, "choices": choices}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if task != "gqa":
            raise RunError(
                f"`--{name}` must be left out unless `--task` is gqa, but the task is {task!r}. Leave it out."
            )
    if consistency is not None and consistency not in _CONSISTENCY:
        raise RunError(
            f"`--consistency` must be one of {', '.join(_CONSISTENCY)}, but is {consistency!r}. Take 'known' where the "
            "gold file holds some of the entailed questions."
        )
    if choices is not None:
        try:
            options["choices"] = json.loads(choices.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"`--choices` must be GQA's choices file, but {choices} cannot be read: {error}. Give such as "
                "testdev_choices.json."
            ) from None
    return options
