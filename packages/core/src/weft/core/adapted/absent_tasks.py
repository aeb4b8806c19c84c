"""Absent tasks: those that had no rows since the last optimiser step, whose slots it leaves alone.

Autograd gives the slots of an absent task a gradient of zeros, because one graph serves all routings. The
papers' code leaves such weights alone, so their gradients are set to None before an optimiser sees them.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook


class Slots(Protocol):
    """The slots of a model, of which some belong to single tasks."""

    tasks: tuple[str, ...]
    owned: list[tuple[str, nn.Parameter]]

    def slots(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Key of the bank, name of the slot and parameter of every slot."""

    def clear_absent(self) -> None:
        """Set the gradients of slots to None whose tasks no row had since the last step."""


class Presence(nn.Module):
    """The tasks seen since the last step.

    A task is present once a gradient came back to its slots, in training mode or not; a forward pass alone
    brings none in. Only in a compiled model it is the forward pass in training mode that counts. Names are
    known on the host and cost nothing. Ids given as a tensor are noted on the device, without waiting for it;
    the only wait is one read per optimiser step.
    """

    seen: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.named: set[int] = set()
        self.noted = False
        self.last: object = None
        self.across_processes = True
        self.register_buffer("seen", torch.zeros(tasks + 1, dtype=torch.uint8), persistent=False)

    def note(self, routing: object, tasks: Collection[Tensor] | frozenset[int]) -> None:
        """Note the tasks of a routing, or their ids on the device, once however many sites saw it."""
        if routing is self.last:
            return
        if isinstance(tasks, frozenset):
            self.named |= tasks
        else:
            self.note_ids(tasks)
        self.last = routing

    def note_ids(self, ids: Iterable[Tensor]) -> None:
        """Note tasks known on the device, -1 being none."""
        for each in ids:
            self.seen.index_fill_(0, each.to(self.seen.device, torch.int64) + 1, 1)
        self.noted = True

    def collect(self) -> set[int] | None:
        """The tasks seen by any process, or None if none noted anything; then forget them.

        Every process of a distributed training takes part; set `across_processes` to False for models that
        are trained in one process alone although torch.distributed is in use.
        """
        seen = self.seen.clone()
        for index in self.named:
            seen[index + 1] = 1
        seen[0] = bool(self.named) or self.noted
        reads = self.noted or bool(self.named)
        if self.across_processes and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(seen, op=torch.distributed.ReduceOp.MAX)
            reads = True
        self.named = set()
        self.noted = False
        self.last = None
        self.seen.zero_()
        if not reads:
            return None
        noted, *present = seen.tolist()
        return {index for index, value in enumerate(present) if value} if noted else None


_WATCHED: weakref.WeakSet[Slots] = weakref.WeakSet()
_HOOKED = False


def watch(store: Slots) -> None:
    """Clear absent slots of a store, while it exists, before any optimiser that holds one of them takes a step."""
    global _HOOKED
    _WATCHED.add(store)
    if not _HOOKED:
        register_optimizer_step_pre_hook(_before_step)
        _HOOKED = True


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    stores = [store for store in _WATCHED if len(store.tasks) > 1]
    if not stores:
        return
    place = {
        id(value): index
        for index, value in enumerate(value for group in optimizer.param_groups for value in group["params"])
    }
    held = []
    for store in stores:
        values = chain((value for _, _, value in store.slots()), (value for _, value in store.owned))
        first = min((place[id(value)] for value in values if id(value) in place), default=None)
        if first is not None:
            held.append((first, store))
    # Every process reduces store after store, so all must take them in one order: that of the optimiser's parameters.
    for _, store in sorted(held, key=lambda one: one[0]):
        store.clear_absent()
