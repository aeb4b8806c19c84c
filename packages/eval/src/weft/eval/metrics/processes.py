"""The processes of a `torch.distributed` group, if there is one."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")


def place() -> tuple[int, int]:
    """Rank of this process and number of all; 0 and 1 where there is no group."""
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def of_everyone(own: Value) -> list[Value]:
    """What each process holds, by rank; all of them must ask, and `own`, what this one holds, must pickle."""
    _, size = place()
    if size == 1:
        return [own]
    import torch.distributed as distributed

    values = [own] * size
    distributed.all_gather_object(values, own)
    return values
