"""A process that dies ends the others of its run with one message, not with a trace of whatever they waited in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from weft.train.engine.checkpoints import newest_whole
from weft.train.errors import RunError
from weft.train.processes import Processes

_BROKEN = ("[gloo]", "/gloo/", "NCCL", "Connection reset by peer", "Connection closed by peer", "Broken pipe")


@contextmanager
def others_may_die(processes: Processes, folder: Path) -> Iterator[None]:
    """Turn a broken connection between the processes of a run into an error that says how to go on.

    Args:
        processes: The processes of the run.
        folder: Folder of the run.

    Raises:
        RunError: When another process is gone; the run's checkpoints are whole or not there.
    """
    try:
        yield
    except RuntimeError as error:
        if processes.size == 1 or isinstance(error, RunError) or not is_broken(error):
            raise
        whole = newest_whole(folder / "checkpoints")
        go_on = "start again with --overwrite" if whole is None else f"--resume goes on from {whole.name}"
        raise RunError(
            f"All {processes.size} processes of a run must live to its end, but process {processes.rank} has lost "
            f"another one: {str(error).strip().partition(chr(10))[0]} Look at what the other one said last; {go_on}."
        ) from error


def is_broken(error: BaseException) -> bool:
    """Whether an error says that another process of a group is gone.

    Args:
        error: What was raised. gloo raises plain runtime errors, which only their words tell apart.
    """
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or any(
        word in str(error) for word in _BROKEN
    )
