"""What dry runs of every kind show: the first batch as a picture, and numbers of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.train.output.files import written

SHOWN = 12
"""Records that a picture shows."""


def picture_path(recipe: Any) -> Path:
    """Where the first batch of a recipe is drawn if nobody says so."""
    return Path(recipe.output) / f"{recipe.name}-first-batch.png"


def save_picture(picture: Any, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with written(path, "--picture") as partial:
        picture.save(partial, "PNG")


def counted(found: int, stated: int | None) -> str:
    """A number of records, beside the official one where they differ."""
    return f"{found:,}" if stated in (None, found) else f"{found:,} (officially {stated:,})"
