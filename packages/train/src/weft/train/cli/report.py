"""`weft compare` and `weft sync`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial as with_first
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.train.cli.console import STORE_HELP, existing_store
from weft.train.errors import RunError, near
from weft.train.output.files import check_picture, written

if TYPE_CHECKING:
    from weft.eval.compare import Comparison

FORMATS = ("terminal", "markdown", "csv", "latex", "html")


def compare(
    experiment: Annotated[str, typer.Argument(help="MLflow experiment.")] = "weft",
    store: Annotated[str | None, typer.Option(help=STORE_HELP)] = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "terminal",
    plot: Annotated[
        Path | None, typer.Option(help="Also draw score against trainable share into this PNG.")
    ] = None,
    bars: Annotated[
        Path | None, typer.Option(help="Also draw the scores of each task into this PNG.")
    ] = None,
    curves: Annotated[Path | None, typer.Option(help="Also draw training losses into this PNG.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Mark what differs from this method by more than chance: * p < 0.05, ** p < 0.01."),
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(
            help="Show published rows beside ours, with source and confidence: a built-in table ('list' names "
            "them) or a CSV file. May be repeated."
        ),
    ] = None,
) -> None:
    """Compare the runs of an experiment: method by task, mean and deviation over seeds."""
    if form not in FORMATS:
        raise RunError(
            f"`--format` must be one of {', '.join(FORMATS)}, but is {form!r}. {near(form, FORMATS)}"
        )
    if published == ["list"]:
        from weft.eval.compare import published_tables

        sys.stdout.write("\n".join(published_tables()) + "\n")
        return
    pictures = {"--plot": plot, "--bars": bars, "--curves": curves}
    for option, picture in pictures.items():
        if picture is not None:
            check_picture(picture, option)
    store = existing_store(store)
    from weft.eval.compare import Comparison as Compared
    from weft.eval.compare import page_from_runs, to_csv, to_latex, to_markdown, to_terminal, with_published

    found = Compared.from_mlflow(store, experiment)
    if against is not None:
        found = _marked(found, store, against)
    found = with_published(found, published or [])
    writers = (to_terminal, to_markdown, to_csv, to_latex, with_first(page_from_runs, store))
    write: dict[str, Callable[[Comparison], str]] = dict(zip(FORMATS, writers, strict=True))
    sys.stdout.write(write[form](found).rstrip() + "\n")
    _draw(found, pictures, store)


def _draw(found: Comparison, pictures: Mapping[str, Path | None], store: str | None) -> None:
    from weft.eval.compare import curve_colours, learning_curves, pareto_plot, read_curves, task_bars

    draw: dict[str, Callable[[Path], object]] = {
        "--plot": lambda path: pareto_plot(found, path),
        "--bars": lambda path: task_bars(found, path),
        "--curves": lambda path: learning_curves(
            read_curves(store, found), path, colours=curve_colours(found)
        ),
    }
    for option, picture in pictures.items():
        if picture is not None:
            with written(picture, option) as partial:
                draw[option](partial)


def _marked(comparison: Comparison, store: str | None, against: str) -> Comparison:
    from weft.eval.compare import significance
    from weft.eval.report import scores_of_runs

    tables = scores_of_runs(store, [row.run_id for row in comparison.rows if row.run_id is not None])
    return comparison.with_marks(significance(comparison, against, tables), against)


def sync(
    spool: Annotated[Path, typer.Argument(help="The folder that an interrupted upload named.")],
    store: Annotated[
        str | None, typer.Option(help="Folder or URI to send it to; by default where the spool says.")
    ] = None,
) -> None:
    """Send to the tracking store what a run could not send while it ran."""
    from weft.eval.tracking import sync as send

    sys.stdout.write(f"run {send(spool, store)} is complete\n")
