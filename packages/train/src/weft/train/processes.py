"""The processes of a run: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from weft.train.errors import RunError


@dataclass(frozen=True)
class Processes:
    """This process among all of a run.

    Attributes:
        rank: Number of this process over all machines, from 0.
        size: Number of processes over all machines.
        device: Device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files, tracks and shows progress."""
        return self.rank == 0

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do something that the others then find done."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def from_first(self, value: Any) -> Any:
        """The value that the first process has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def join_processes() -> Processes:
    """Join the processes that a launcher started, if one did.

    Raises:
        RunError: If the launcher asks for FSDP or DeepSpeed. Adapters are a few per cent of a model, and so are
            their gradients and optimiser states: data parallelism shards nothing that is large but the frozen
            weights. Accelerate besides leaves FSDP out on CPUs without a word.
    """
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise RunError(
                f"The launcher must not ask for {name}, but {variable} is set. weft trains with plain data "
                "parallelism (DDP), and Accelerate ignores FSDP on CPUs without a word. Launch with torchrun, or "
                "answer `accelerate config` with multi-GPU or multi-CPU."
            )
    cuda = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, torch.device("cuda" if cuda else "cpu"))
    from accelerate import PartialState

    state = PartialState(cpu=not cuda)
    return Processes(state.process_index, state.num_processes, state.device)


ONE = Processes(0, 1, torch.device("cpu"))
"""A run of a single process."""
