"""Banks: the only owners of adapter weights. They are registered once, under `model.weft`; sites hold references.

A bank is one tensor of a unit at one slot address, with a parameter for every task, or group of tasks, that does not
share it.
Sites that share it resolve to the same bank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.adapted.absent_tasks import Presence, watch
from weft.core.adapted.routing import Routing
from weft.core.backbone.owners import Media, OwnersRule
from weft.core.backbone.sites import Site
from weft.core.errors import AttachError, WeftError
from weft.core.sharing import SHARED, slot_for, tasks_of
from weft.core.unit.protocol import TensorSpec
from weft.kernels import RoutedRows, route_rows

Prepared = dict[tuple[str, bool, int, torch.device], RoutedRows]


class Bank(nn.Module):
    """The slots of one tensor: parameters of their own, next to each other in one buffer.

    They are named after tasks and groups of tasks, or `shared` is the only one. Optimisers, gradients and checkpoints
    see a parameter per slot; kernels read the buffer without a copy. Where something replaces the memory of a slot
    (FSDP2, `functional_call`), the slots are stacked instead.
    """

    def __init__(
        self,
        slots: Sequence[str],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        trainable: bool,
    ) -> None:
        super().__init__()
        self._buffer = torch.empty((len(slots), *shape), dtype=dtype, device=device)
        # Written past `register_parameter`, which refuses names such as `train` that a task may well have.
        for slot, row in zip(slots, self._buffer, strict=True):
            self._parameters[slot] = nn.Parameter(row, requires_grad=trainable)
        self._of_tasks: tuple[int, ...] | None = None
        self._table: Tensor | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots; slot `i` of `stacked` is the `i`-th."""
        return tuple(self._parameters)

    def slot_of(self, task: str) -> Tensor:
        """The slot that a task uses."""
        value = self._parameters[slot_for(task, self._parameters) or task]
        assert value is not None
        return value

    def serve(self, tasks: Sequence[str]) -> None:
        """Know the tasks whose rows it serves, in order; tasks that share in groups need a table."""
        slots = self.slots
        places = [slot_for(task, slots) for task in tasks]
        found = tuple(slots.index(place) for place in places if place is not None)
        assert len(found) == len(tasks), "every task has a slot"
        one_each = found == tuple(range(len(slots)))
        self._of_tasks = None if len(slots) == 1 or one_each else found
        self._lay_table()

    def _lay_table(self) -> None:
        places = self._of_tasks
        self._table = None if places is None else torch.tensor(places, device=self._buffer.device)

    def stored(self) -> tuple[Tensor, Tensor | None]:
        """All slots as `stacked` gives them, and the slot of every task where tasks share in groups."""
        return self.stacked(), self._table

    def by_task(self) -> Tensor:
        """The slot of every task, shape `(tasks, *shape)`, or `(1, *shape)` where there is one for all."""
        if self._of_tasks is None:
            return self.stacked()
        values = self._values()
        # Stacked rather than indexed, so that a slot's gradient is a sum in the order of the tasks on every device.
        return torch.stack([values[place] for place in self._of_tasks])

    def _values(self) -> list[nn.Parameter]:
        return [value for value in self._parameters.values() if value is not None]

    def stacked(self) -> Tensor:
        """All slots, shape `(slots, *shape)`: the buffer they are in, if they still do."""
        values: list[Tensor] = list(self._values())
        if len(values) == 1:
            return values[0][None]
        if torch.compiler.is_compiling() or not self._in_buffer(values):
            return torch.stack(values)
        together: Tensor = Together.apply(self._buffer, *values)
        return together

    def _in_buffer(self, values: Sequence[Tensor]) -> bool:
        buffer = self._buffer
        if buffer.shape[0] != len(values) or buffer.is_meta:
            return False
        first, step = buffer.data_ptr(), buffer.stride(0) * buffer.element_size()
        return all(
            type(value) is nn.Parameter
            and value.dtype == buffer.dtype
            and value.is_contiguous()
            and value.data_ptr() == first + place * step
            for place, value in enumerate(values)
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move or convert the slots, and lay them together again."""
        result = super()._apply(fn, recurse)
        self.lay_together()
        return result

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.lay_together()

    def lay_together(self) -> None:
        """Put all slots next to each other, as after one was added or all were moved."""
        values = self._values()
        if any(type(value) is not nn.Parameter for value in values):
            return
        with torch.no_grad():
            self._buffer = torch.stack([value.detach() for value in values])
            for value, row in zip(values, self._buffer, strict=True):
                value.data = row
        self._lay_table()

    def put_in_order(self, slots: Sequence[str]) -> None:
        """Put the slots into an order, and lay them together."""
        values = {slot: self._parameters[slot] for slot in slots}
        self._parameters.clear()
        self._parameters.update(values)
        self.lay_together()


class Together(torch.autograd.Function):
    """A buffer as the sum of its slots: forward copies nothing, backward cuts the gradient into rows."""

    @staticmethod
    def forward(ctx: Any, buffer: Tensor, *slots: Tensor) -> Tensor:
        """The buffer, shape `(slots, *shape)`."""
        ctx.slots, ctx.versions = slots, [slot._version for slot in slots]
        return buffer.view_as(buffer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of every slot.

        Raises:
            RuntimeError: If a slot was changed since; what the graph kept of the buffer is then another value.
        """
        if [slot._version for slot in ctx.slots] != ctx.versions:
            raise RuntimeError(
                "the slots of an adapter must not be changed in place between forward and backward, but were. "
                "Take the optimiser's step after the backward pass."
            )
        return None, *gradients[0].unbind()


def filled_bank(spec: TensorSpec, slots: Sequence[str], dtype: torch.dtype, device: torch.device) -> Bank:
    """A bank with initial values; on the meta device there are none."""
    bank = Bank(slots, spec.shape, dtype, device, spec.trainable)
    if device.type != "meta":
        with torch.no_grad():
            for value in bank.parameters():
                spec.init(value)
    return bank


class Folder(nn.Module):
    """A level of the tree of addresses between the root and the banks."""

    def descend(self, words: Sequence[str], leaf: nn.Module) -> None:
        """Put a module at a path below, making the levels on the way."""
        node: nn.Module = self
        for word in words[:-1]:
            node = node._modules.setdefault(word, Folder())  # type: ignore[assignment]
        node._modules[words[-1]] = leaf


class Store(Folder):
    """The root of all banks of a model, and the state of its routing; a task's id is its position."""

    def __init__(self, tasks: Sequence[str], plan: Any) -> None:
        super().__init__()
        self.plan = plan
        self.enabled = True
        self.routing: Routing | None = None
        self.signals: Mapping[str, Tensor] = {}
        self.losses: list[Tensor] | None = None  # what units add theirs to; with None they compute none
        self.owners_rule: OwnersRule | None = None
        self.needs_owners = False
        self.media: Sequence[Media] | None = None
        self.generating = False  # rows then stand for several each, as beams do
        self.image_tokens: tuple[int, ...] = ()
        self.banks_by_key: dict[str, Bank] = {}
        self.prepared: Prepared = {}
        self.prepared_for: Routing | None = None
        self.set_tasks(tasks, torch.device("cpu"))
        self.owned: list[tuple[str, nn.Parameter]] = []
        self.trained_before: dict[str, bool] = {}
        self.wrapped_parameters: int | None = None
        watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        watch(self)

    def set_tasks(self, tasks: Sequence[str], device: torch.device) -> None:
        """Set the tasks, and put what belongs to their number onto a device."""
        self.tasks = tuple(tasks)
        self.prepared, self.prepared_for = {}, None
        self.presence = Presence(len(self.tasks)).to(device)
        for bank in self.banks_by_key.values():
            bank.serve(self.tasks)

    def add(self, key: str, bank: Bank) -> None:
        """Register a bank at its address."""
        self.descend(key.split("."), bank)
        self.banks_by_key[key] = bank
        bank.serve(self.tasks)

    def slots(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Key of the bank, name of the slot and parameter of every slot."""
        for key, bank in self.banks_by_key.items():
            for slot, value in bank._parameters.items():
                if value is not None:
                    yield key, slot, value

    @property
    def by_task(self) -> bool:
        """Whether tasks have weights that are not of all of them."""
        return bool(self.owned) or any(len(bank.slots) > 1 for bank in self.banks_by_key.values())

    def own(self, model: nn.Module) -> None:
        """Know the trained parameters of the backbone that belong to single tasks, as they are now."""
        named = [(full.task, full.path) for full in self.plan.full if full.task is not None]
        self.owned = [(task, model.get_parameter(path)) for task, path in named]

    @contextlib.contextmanager
    def using(
        self,
        routing: Routing | None,
        enabled: bool,
        signals: Mapping[str, Tensor] | None = None,
        media: Sequence[Media] | None = None,
        prepared: Prepared | None = None,
    ) -> Iterator[None]:
        """Set the routing, whether units act at all, signals and media, and put all back afterwards.

        None leaves signals and media as they are; `prepared` is what `routed` found for the same batch before.
        """
        before = self.routing, self.enabled, self.signals, self.media, self.prepared, self.prepared_for
        self.routing, self.enabled = routing, enabled
        self.prepared, self.prepared_for = {} if prepared is None else prepared, routing
        self.signals = self.signals if signals is None else signals
        self.media = self.media if media is None else media
        try:
            yield
        finally:
            self.routing, self.enabled, self.signals, self.media, self.prepared, self.prepared_for = before

    def routed(self, routing: Routing, site: Site, rows: int, device: torch.device) -> RoutedRows:
        """The rows of a site sorted by task, once for all sites of a batch that see the same rows.

        Raises:
            RoutingError: As `Routing.rows` does.
        """
        if self.prepared_for is not routing:
            self.prepared, self.prepared_for = {}, routing
        key = site.modality, site.owned, rows, device
        if key not in self.prepared:
            ids = routing.rows(site, rows, device, self.media)
            self.prepared[key] = route_rows(ids, len(self.tasks))
        return self.prepared[key]

    @contextlib.contextmanager
    def setting(self, name: str, value: Any) -> Iterator[None]:
        """Set one thing, and put it back afterwards: the list for auxiliary `losses`, `generating`, or `training`."""
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    def clear_absent(self) -> None:
        """Set the gradients of slots to None whose tasks no row had since the last optimiser step.

        So are those of trained parameters of the backbone that belong to such a task, such as its head.
        Optimisers then leave them alone, instead of decaying them on a gradient of zero. It happens by itself
        before the step of any optimiser of torch that holds one of them; in a training that is spread over
        processes all of them take part, so that a task counts as present if one process had it.
        """
        if not self.by_task:
            return
        if self.routing is not None:
            self.routing.note(self.presence)
        present = self.presence.collect()
        if present is None or len(present) == len(self.tasks):
            return
        here = {self.tasks[index] for index in present}
        for _, slot, value in self.slots():
            if slot != SHARED and here.isdisjoint(tasks_of(slot)):
                value.grad = None
        for task, value in self.owned:
            if task not in here:
                value.grad = None


def store_of(
    model: nn.Module, error: type[WeftError] = AttachError, then: str = "Call `attach` first."
) -> Store:
    """The store of an adapted model; the message about one without units ends with what to do then.

    Raises:
        WeftError: Of class `error`, if the model has no units.
    """
    store = getattr(model, "weft", None)
    if not isinstance(store, Store):
        raise error(f"`model` must have units, but it has none. {then}")
    return store
