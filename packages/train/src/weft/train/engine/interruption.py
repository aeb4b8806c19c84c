"""What breaks a run off ends it with one message that says how to resume: Ctrl-C, a full disk, a lost process."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from weft.train.engine.checkpoints import how_to_resume, remove_partial
from weft.train.errors import RunError, causes
from weft.train.processes import Processes

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SPACE = 65_536
_BROKEN = ("[gloo]", "/gloo/", "NCCL", "Connection reset by peer", "Connection closed by peer", "Broken pipe")


@contextmanager
def may_be_interrupted(folder: Path) -> Iterator[None]:
    """Note on a keyboard interrupt how the run inside resumes."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(how_to_resume(folder))
        raise


@contextmanager
def disk_may_fill(folder: Path) -> Iterator[None]:
    """Turn any sign of a full disk into an error that says how to resume.

    Raises:
        RunError: When the work inside found no room; the run's checkpoints are then whole or gone.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error, folder):
            raise
        remove_partial(folder / "checkpoints")
        raise RunError(
            f"The disk that holds `output` must have room for checkpoints and metrics, but is full: {folder} has "
            f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB left. Free some space. {how_to_resume(folder)}"
        ) from error


@contextmanager
def others_may_die(processes: Processes, folder: Path) -> Iterator[None]:
    """Turn a broken connection between the processes of a run into an error that says how to resume.

    Raises:
        RunError: When another process is gone; the run's checkpoints are whole or not there.
    """
    try:
        yield
    except RuntimeError as error:
        if processes.size == 1 or isinstance(error, RunError) or not is_broken(error):
            raise
        raise RunError(
            f"All {processes.size} processes of a run must live to its end, but process {processes.rank} has lost "
            f"another one: {str(error).strip().partition(chr(10))[0]} Look at what the other one said last. "
            f"{how_to_resume(folder)}"
        ) from error


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether an error, or one that it came from, says that the disk of a folder is full.

    safetensors gives the system's words, torch not even those: its writer's complaint counts where there is no room.
    """
    for found in causes(error):
        text = str(found)
        if (isinstance(found, OSError) and found.errno in _FULL) or os.strerror(errno.ENOSPC) in text:
            return True
        if "inline_container" in text and shutil.disk_usage(folder).free < _NO_SPACE:
            return True
    return False


def is_broken(error: BaseException) -> bool:
    """Whether an error says that another process of a group is gone; gloo's are known by their words alone."""
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or any(
        word in str(error) for word in _BROKEN
    )
