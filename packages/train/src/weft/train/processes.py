"""The processes of a run: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from weft.train.errors import RunError

T = TypeVar("T")


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

    def decided_by_first(self, decide: Callable[[], T]) -> T:
        """What the first process finds; what it raises is raised by all, so that no other dies of its absence."""
        value = error = None
        if self.first:
            try:
                value = decide()
            except Exception as raised:
                if self.size == 1:
                    raise
                error = raised
        value, error = self.from_first((value, error))
        if error is not None:
            raise error
        return cast("T", value)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def join_processes() -> Processes:
    """Join the processes that a launcher started, if one did.

    Raises:
        RunError: If the processes cannot meet, or the launcher asks for FSDP or DeepSpeed. The recipe says whether a
            model is sharded, and weft shards it itself: Accelerate silently leaves FSDP out on CPUs.
    """
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise RunError(
                f"The launcher must not ask for {name}, but {variable} is set, and Accelerate ignores FSDP on CPUs "
                "without a word. Launch with torchrun, or answer `accelerate config` with multi-GPU or multi-CPU; "
                "training.sharded=true shards the model (FSDP2)."
            )
    cuda = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, torch.device("cuda" if cuda else "cpu"))
    from accelerate import PartialState

    try:
        state = PartialState(cpu=not cuda)
    except dist.DistNetworkError as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RunError(
            f"The processes must be able to meet at MASTER_ADDR:MASTER_PORT ({place}), but cannot: "
            f"{str(error).partition(chr(10))[0]} Name a free port that every machine reaches, or launch with "
            "torchrun --standalone."
        ) from None
    return Processes(state.process_index, state.num_processes, state.device)


ONE = Processes(0, 1, torch.device("cpu"))
"""A run of a single process."""
