"""`weft recipes`: what is shipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.train.errors import RecipeError
from weft.train.output.files import written

app = typer.Typer(help="List, show and copy the recipes that are part of weft.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """List the built-in recipes."""
    from weft.train.recipe.files import built_in_recipes

    sys.stdout.write("\n".join(built_in_recipes()) + "\n")


@app.command()
def show(name: str) -> None:
    """Print a recipe with everything it extends, its comments, and published scores of its method."""
    sys.stdout.write(_whole(name))


@app.command()
def copy(name: str, target: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write a recipe, as `show` prints it, to a file of your own."""
    if target.exists():
        raise RecipeError(f"`TARGET` must be a new file, but {target} exists. Choose another name.")
    text = _whole(name)
    with written(target, "TARGET") as partial:
        partial.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{target}\n")


def _whole(name: str) -> str:
    """A recipe as one file that extends no other."""
    import yaml

    from weft.train.recipe.files import find_recipe, read_yaml, remarks
    from weft.train.recipe.loading import load_any
    from weft.train.recipe.published import published_of, shown

    class Plain(yaml.SafeDumper):
        """Writes equal values out each time, instead of pointing back to the first."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    path = find_recipe(name)
    published = shown(published_of(load_any(name)))
    header = [*remarks(path), *(f"# Published: {line}" for line in published)]
    body = yaml.dump(read_yaml(path), Dumper=Plain, sort_keys=False, allow_unicode=True)
    return "".join(f"{line}\n" for line in header) + body


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, by which editors complete and check them."""
    import json

    from weft.train.recipe.schema import recipe_schema

    sys.stdout.write(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n")
