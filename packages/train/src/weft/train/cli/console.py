"""What commands have in common: the recipe they take, the store they read, and what they show on a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from weft.train.errors import RunError
from weft.train.output.progress import PlainProgress, Progress, RichProgress


def _built_in(begun: str) -> list[str]:
    """The built-in recipes that a shell offers for what is typed; names of files it completes itself."""
    from weft.train.recipe.files import built_in_recipes

    return [name for name in built_in_recipes() if name.startswith(begun)]


RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A YAML file, or a built-in name.", autocompletion=_built_in),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes to the recipe.")
]


DEFAULT_STORE = "weft-runs/mlflow"
STORE_HELP = f"Folder or URI of the store; by default MLFLOW_TRACKING_URI or {DEFAULT_STORE}."


def existing_store(store: str | None) -> str | None:
    """The store to read: as given, else that of the environment (None), else the folder beside the runs.

    Raises:
        RunError: If it is neither a tracking URI nor a folder that holds a database.
    """
    if store is None:
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        store = DEFAULT_STORE
    if "://" not in store and not (Path(store) / "mlflow.db").is_file():
        raise RunError(
            f"`--store` must be a folder that holds mlflow.db, or a tracking URI, but {store!r} is neither."
            " Name the folder that holds the runs' mlflow.db."
        )
    return store


def is_first() -> bool:
    """Whether this is the process, among those that a launcher started, that speaks."""
    return os.environ.get("RANK", "0") == "0"


def progress() -> Progress:
    """Bars on a terminal, lines elsewhere, nothing on processes other than the first."""
    if not is_first():
        return Progress()
    if sys.stderr.isatty():
        return RichProgress()
    return PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201


def show(text: str) -> None:
    """Print a text on the first process."""
    if is_first():
        sys.stdout.write(text)
