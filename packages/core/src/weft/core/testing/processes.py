"""Two processes of one test, joined by gloo."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes


def spawn(function: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """Call `function(rank, folder, *arguments)` in two processes of a group, and wait for both.

    The processes import the function's module, and meet in the folder.
    """
    start_processes(_started, args=(function, folder, *arguments), nprocs=2, start_method="spawn")


def _started(rank: int, function: Callable[..., None], folder: Path, *arguments: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    address = (folder / "store").absolute().as_uri()
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        function(rank, folder, *arguments)
    finally:
        dist.destroy_process_group()
