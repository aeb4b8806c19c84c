"""The commands, gathered."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from weft.train.cli import data, demo, exchange, features, inspection, recipes, report, runs, sweep

app = typer.Typer(
    name="weft",
    help="Adapt vision-and-language models to many tasks by training a few per cent of their parameters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("plan")(runs.plan)
app.command("train")(runs.train)
app.command("sweep")(sweep.sweep)
app.command("evaluate")(runs.evaluate)
app.command("features")(features.features)
data.app.command("import-features")(features.import_all)
app.command("compare")(report.compare)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("inspect")(inspection.inspect)
app.command("sync")(report.sync)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    A mistake of the user ends with one message and exit code 2, a run that SIGTERM stopped with one and 143;
    anything else is a defect and shows its trace.

    Args:
        arguments: Words after `weft`; by default those of the process.
    """
    # The command line is offline by default where it can be: telemetry of others never belongs in it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(args=None if arguments is None else list(arguments))
    except Exception as error:
        if not is_mistake(error):
            raise
        sys.stderr.write(f"weft: {error}\n")
        sys.exit(getattr(error, "exit_code", 2))


def is_mistake(error: BaseException) -> bool:
    """Whether an error is one of weft's own, which name what to mend."""
    return any(
        kind.__module__.startswith("weft.") and kind.__module__.endswith(".errors")
        for kind in type(error).__mro__
    )
