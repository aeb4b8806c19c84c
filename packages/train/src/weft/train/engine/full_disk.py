"""A disk that fills up ends a run with one message; what was half written is removed, whole checkpoints stay."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.train.engine.checkpoints import newest_whole, remove_partial
from weft.train.errors import RunError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SPACE = 65_536


@contextmanager
def disk_may_fill(folder: Path) -> Iterator[None]:
    """Turn any sign of a full disk into an error that says how to go on.

    Args:
        folder: Folder of the run.

    Raises:
        RunError: When the work inside found no room; the run's checkpoints are then whole or gone.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error, folder):
            raise
        remove_partial(folder / "checkpoints")
        whole = newest_whole(folder / "checkpoints")
        go_on = (
            "There is no checkpoint yet: free some space and start again with --overwrite"
            if whole is None
            else f"{whole.name} is whole: free some space and go on from it with --resume"
        )
        raise RunError(
            f"The disk that holds `output` must have room for checkpoints and metrics, but is full: {folder} has "
            f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB left. {go_on}."
        ) from error


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether an error, or one that it came from, says that the disk is full.

    Args:
        error: What was raised. safetensors gives the system's words, torch not even those: its writer's complaint
            counts where the disk has no room.
        folder: A folder on the disk.
    """
    found: BaseException | None = error
    while found is not None:
        text = str(found)
        if (isinstance(found, OSError) and found.errno in _FULL) or os.strerror(errno.ENOSPC) in text:
            return True
        if "inline_container" in text and shutil.disk_usage(folder).free < _NO_SPACE:
            return True
        found = found.__cause__ or found.__context__
    return False
