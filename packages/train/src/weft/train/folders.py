"""Folders that a command writes into: made, or refused with one message, before any long work."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from weft.train.errors import RunError


def require_new(folder: Path, *, otherwise: str) -> None:
    """Refuse a folder of a run that is there already.

    Args:
        folder: Folder of the run.
        otherwise: What can be done instead, as the end of the message.

    Raises:
        RunError: If there is such a folder or file.
    """
    if folder.exists() or folder.is_symlink():
        raise RunError(f"`name` must be new in {str(folder.parent)!r}, but {folder} exists. Use {otherwise}.")


def make_run_folder(folder: Path, recipe: str) -> None:
    """Make the folder of a run anew, with its recipe; what was there before is removed.

    Args:
        folder: Folder of the run.
        recipe: Text of its `recipe.yaml`.

    Raises:
        RunError: If it cannot be made; nothing half made is left.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    except OSError as error:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        raise RunError(
            f"`output` must be a folder that can be written, but {folder} cannot be made: {error}"
        ) from None


def check_writable(folder: Path, argument: str) -> None:
    """Try to write where a folder is or would be made; nothing is left there.

    Args:
        folder: The folder.
        argument: What the user calls it.

    Raises:
        RunError: If it cannot be made or written.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise RunError(
            f"`{argument}` must be a folder that can be written, but {folder} is not: {error}. Name another."
        ) from None
