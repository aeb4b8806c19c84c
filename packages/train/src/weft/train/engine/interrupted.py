"""Ctrl-C ends a run at once; what it says then is how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.train.engine.checkpoints import newest_whole


@contextmanager
def may_be_interrupted(folder: Path) -> Iterator[None]:
    """Note on a keyboard interrupt how the run inside goes on.

    Args:
        folder: Folder of the run.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        whole = newest_whole(folder / "checkpoints")
        stop.add_note(
            "There is no checkpoint yet: --overwrite starts again."
            if whole is None
            else f"{whole.name} is whole: --resume goes on from it."
        )
        raise
