"""`weft features` and `weft data import-features`: features extracted once, here or by others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from weft.train.cli.console import Overrides, RecipeArgument, progress, show


def features(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the stores, one for each task; by default weft-features. Features of a model that its own "
            "processor reads lie beside the runs."
        ),
    ] = None,
) -> None:
    """Extract the features of a recipe's images into memory-mapped stores; resumes where it was interrupted."""
    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.extract import extract_keys

    for key, value in extract_keys(load_recipe(recipe, overrides), store, progress()).items():
        show(f"{key}={value}\n")


def import_all(
    source: Annotated[Path, typer.Argument(help="HDF5 files, Parquet shards or npz files, or their folder.")],
    store: Annotated[Path, typer.Argument(help="A new folder.")],
    encoder: Annotated[str, typer.Option(help="What made the features; kept in the store.")] = "",
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pool each grid or video to as many tokens as the model takes (backbone.num_visual_tokens), once "
            "instead of in every step.",
        ),
    ] = None,
) -> None:
    """Bring features that others extracted into a memory-mapped store.

    HDF5 files hold a group per image with an array `features`, Parquet shards the columns `id` and `features`, npz
    files one array `features` each, whose first axis may differ from file to file.
    """
    from weft.train.runs.feature_import import import_features

    written = import_features(source, store, encoder=encoder, tokens=tokens)
    sys.stdout.write(f"{store}: {len(written):,} items of shape {written.item_shape}\n")
