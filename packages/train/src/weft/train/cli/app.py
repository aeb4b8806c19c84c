"""The commands, gathered."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from weft.train.cli import (
    data,
    demo,
    encoder,
    exchange,
    features,
    inspection,
    recipes,
    report,
    runs,
    serving,
    share,
    sweep,
)
from weft.train.cli.endings import interrupt_of, of_every_command, printable, say_defect, say_interrupted
from weft.train.errors import is_mistake
from weft.train.output.terminal import guarded_output

app = typer.Typer(
    name="weft",
    help="Adapt vision-and-language models to many tasks by training a few per cent of their parameters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("plan")(runs.plan)
app.command("train")(runs.train)
app.command("sweep")(sweep.sweep)
app.command("share")(share.share)
app.command("evaluate")(runs.evaluate)
app.command("features")(features.features)
data.app.command("import-features")(features.import_all)
app.command("compare")(report.compare)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("serve")(serving.serve)
app.command("inspect")(inspection.inspect)
app.command("sync")(report.sync)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(encoder.app, name="encoder")


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"weft {metadata.version('weft-train')}\n")
        raise typer.Exit


@app.callback()
def everywhere(
    variable: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let recipes read this environment variable (may be repeated)."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Print the full traceback of an error that weft does not know."),
    ] = False,
) -> None:
    """Options that every command takes, before or behind its name; `main` reads them, and here they are described."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, given by the words after `weft`; by default those of the process.

    A mistake of the user ends with one message and exit code 2, a run that SIGTERM stopped with one and 143, Ctrl-C
    with one and 130. Anything else is a defect: it ends with one message and exit code 1; a file keeps its trace.
    """
    # The command line is offline by default where it can be: telemetry of others never belongs in it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    words, trace = list(sys.argv[1:] if arguments is None else arguments), False
    try:
        words, variables, trace = of_every_command(words)
        if variables:
            from weft.train.recipe.variables import allow

            allow(variables)
        with guarded_output():
            app(args=words, prog_name="weft")
    except SystemExit as ended:
        stop = interrupt_of(ended)
        if stop is not None:
            say_interrupted(stop)
        raise
    except KeyboardInterrupt as stop:
        say_interrupted(stop)
        sys.exit(130)
    except Exception as error:
        if is_mistake(error):
            sys.stderr.write(f"weft: {printable(str(error))}\n")
            sys.exit(getattr(error, "exit_code", 2))
        say_defect(error, whole=trace)
        sys.exit(1)
