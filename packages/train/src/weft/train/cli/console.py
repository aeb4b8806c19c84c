"""What commands have in common: the recipe they take, and what they show on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

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
