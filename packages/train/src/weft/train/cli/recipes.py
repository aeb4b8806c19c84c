"""`weft recipes`: what is shipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, show and copy the recipes that are part of weft.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """List the built-in recipes."""
    from weft.train.recipe_files import built_in_recipes

    sys.stdout.write("\n".join(built_in_recipes()) + "\n")


@app.command()
def show(name: str) -> None:
    """Print a recipe with everything it extends."""
    import yaml

    from weft.train.recipe_files import find_recipe, read_yaml

    sys.stdout.write(yaml.safe_dump(read_yaml(find_recipe(name)), sort_keys=False, allow_unicode=True))


@app.command()
def copy(name: str, target: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write a recipe, with everything it extends, to a file of your own."""
    import yaml

    from weft.train.errors import RecipeError
    from weft.train.recipe_files import find_recipe, read_yaml

    if target.exists():
        raise RecipeError(f"`TARGET` must be a new file, but {target} exists. Choose another name.")
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(yaml.safe_dump(read_yaml(find_recipe(name)), sort_keys=False, allow_unicode=True))
    shutil.move(partial, target)
    sys.stdout.write(f"{target}\n")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, by which editors complete and check them."""
    import json

    from weft.train.recipe_schema import recipe_schema

    sys.stdout.write(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n")
