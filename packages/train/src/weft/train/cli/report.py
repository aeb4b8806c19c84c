"""`weft compare` and `weft sync`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("terminal", "markdown", "csv", "latex", "html")


def compare(
    experiment: Annotated[str, typer.Argument(help="MLflow experiment.")] = "weft",
    store: Annotated[
        str | None,
        typer.Option(help="Folder or URI of the store; by default MLFLOW_TRACKING_URI or weft-runs/mlflow."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "terminal",
    plot: Annotated[
        Path | None, typer.Option(help="Also draw score against trainable share into this PNG.")
    ] = None,
) -> None:
    """Compare the runs of an experiment: method by task, mean and deviation over seeds."""
    import os

    from weft.train.errors import RunError, near

    if form not in FORMATS:
        raise RunError(
            f"`--format` must be one of {', '.join(FORMATS)}, but is {form!r}. {near(form, FORMATS)}"
        )
    if store is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        store = "weft-runs/mlflow"
    if store is not None and "://" not in store and not (Path(store) / "mlflow.db").is_file():
        raise RunError(
            f"`--store` must be a folder that holds mlflow.db, or a tracking URI, but {store!r} is neither."
        )
    from weft.eval.compare import Comparison, pareto_plot, to_csv, to_html, to_latex, to_markdown, to_terminal

    found = Comparison.from_mlflow(store, experiment)
    write = dict(zip(FORMATS, (to_terminal, to_markdown, to_csv, to_latex, to_html), strict=True))
    sys.stdout.write(write[form](found).rstrip() + "\n")
    if plot is not None:
        pareto_plot(found, plot)


def sync(spool: Annotated[Path, typer.Argument(help="The folder that an interrupted upload named.")]) -> None:
    """Send to the tracking store what a run could not send while it ran."""
    from weft.eval.tracking import sync as send

    sys.stdout.write(f"run {send(spool)} is complete\n")
