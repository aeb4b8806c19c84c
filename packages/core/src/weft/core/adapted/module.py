"""Sites: the modules of a backbone that units act at, and what a unit gets of a batch there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.adapted.bank import Bank, Store
from weft.core.adapted.routing import note_gradient
from weft.core.adapted.subclassing import Picklable, restore_class, swap_class
from weft.core.backbone.layer_sites import stream_name
from weft.core.backbone.sites import Site
from weft.core.errors import RoutingError
from weft.core.unit.attention import restore_attention
from weft.core.unit.protocol import Unit
from weft.kernels import RoutedRows

_SITE = "_weft_site"


class SiteWeights:
    """The tensors of a unit at one site, for one batch. See `weft.core.unit.protocol.Weights`."""

    def __init__(
        self, unit: SiteUnit, routed: RoutedRows | None, taps: dict[str, Tensor], device: torch.device
    ) -> None:
        store = unit.store
        self._device = device
        self._banks = unit.banks
        self.module = unit.module
        self._taps = taps
        self._signals = store.signals
        self._losses = store.losses
        self._presence = store.presence
        self._routing = store.routing
        self.routed = routed
        self.task_ids = None if routed is None else routed.ids
        self.tasks = len(store.tasks)
        self.has_identity = routed is not None and store.routing is not None and store.routing.has_identity
        self.training = store.training

    def __getitem__(self, name: str) -> Tensor:
        return self._noted(self._banks[name].by_task())

    def stored(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The slots as stored, and the slot of every task."""
        stacked, table = self._banks[name].stored()
        return self._noted(stacked), table

    def _noted(self, slots: Tensor) -> Tensor:
        traced = torch.compiler.is_compiling()
        if slots.shape[0] > 1 and self._routing is not None and slots.requires_grad and not traced:
            # A gradient that arrives here is that of the rows routed now, whatever is routed then.
            slots.register_hook(partial(note_gradient, self._presence, self._routing))
        return slots

    def rows(self, name: str) -> Tensor:
        """The tensor of every row."""
        stacked, table = self.stored(name)
        if stacked.shape[0] == 1 or self.task_ids is None:
            return stacked[:1]
        tasks = self.task_ids.clamp_min(0)
        return stacked.index_select(0, tasks if table is None else table.index_select(0, tasks))

    def tapped(self, name: str) -> Tensor | None:
        """What a tapped module read in this pass."""
        return self._taps.get(name)

    def signal(self, name: str) -> Tensor | None:
        """A tensor of the batch, on the device of the rows."""
        value = self._signals.get(name)
        return value if value is None else value.to(self._device)

    def plain_forward(self, inputs: Tensor, path: str = "") -> Tensor:
        """What the site's module, or one within it, returns without its units."""
        return plain_forward(self.module.get_submodule(path), inputs)

    @property
    def collects_losses(self) -> bool:
        """Whether auxiliary losses are collected."""
        return self._losses is not None

    def owe(self, loss: Tensor) -> None:
        """Add to the auxiliary losses, if they are collected."""
        if self._losses is not None:
            self._losses.append(loss)

    def keep_identity(self, adapted: Tensor, plain: Tensor) -> Tensor:
        """`plain` on rows of task -1."""
        if self.task_ids is None:
            return adapted
        is_task = (self.task_ids >= 0).view(-1, *[1] * (plain.dim() - 1))
        return adapted.where(is_task, plain)


class SiteUnit:
    """One unit at one site: the site, the computation and references to its banks."""

    def __init__(
        self, store: Store, site: Site, unit: Unit, banks: dict[str, Bank], module: nn.Module
    ) -> None:
        self.store = store
        self.module = module
        self.site = site
        self.unit = unit
        self.banks = banks
        self.tapped: dict[str, Tensor] = {}

    def start(self, task: str | None = None, drawn: Collection[Bank] = ()) -> None:
        """Let the unit set starting values that depend on the module.

        With a task, only those of its slots in the banks in which it was just drawn.
        """
        if type(self.unit).start is Unit.start:
            return
        banks = {name: bank for name, bank in self.banks.items() if task is None or bank in drawn}
        with torch.no_grad():
            for each in self.store.tasks if task is None else (task,):
                slots = {name: bank.slot_of(each) for name, bank in banks.items()}
                if not any(value.is_meta for value in slots.values()):
                    self.unit.start(self.module, slots)

    def call(self, name: str, forward: Callable[..., Any], **arguments: Any) -> Any:
        """Let the unit call a module that it wraps, by the field of the site that names it."""
        return self.unit.call(name, forward, arguments, self.weights)

    def before(self, inputs: Tensor) -> Tensor:
        """What the module is to read, in its own order of axes."""
        rows = self._rows(inputs)
        return self._own_order(self.unit.before(rows, self.weights(rows)), inputs)

    def after(self, output: Tensor, inputs: Tensor) -> Tensor:
        """What the module is to return after its own output or that of the unit before, in its own order of axes."""
        taps, self.tapped = self.tapped, {}
        taps = {name: self._rows(value) for name, value in taps.items()}
        rows, read = self._rows(output), self._rows(inputs)
        weights = self.weights(rows, taps)
        changed = self.unit.after(rows, read, weights)
        return self._own_order(self.unit.beside(changed, taps.get("source", read), weights), output)

    def finish(self, output: Tensor) -> Tensor:
        """What the module is to return after all units, in its own order of axes."""
        rows = self._rows(output)
        return self._own_order(self.unit.finish(rows, self.weights(rows)), output)

    def _rows(self, value: Tensor) -> Tensor:
        """Rows first and features last; packed tokens are separate rows."""
        if self._is_packed(value):
            return value[0]
        return value.movedim(1, -1) if self.site.channels_first else value

    def _is_packed(self, value: Tensor) -> bool:
        """Whether the tokens of all rows are concatenated, shape `(1, tokens, ...)`, and each has its owner."""
        owner = None if self.store.routing is None else self.store.routing.owners.get(self.site.modality)
        return owner is not None and value.dim() > 1 and value.shape[:2] == (1, owner.shape[0])

    def _own_order(self, value: Tensor, like: Tensor) -> Tensor:
        if self._is_packed(like):
            return value[None]
        # Laid out as convolutions lay their maps out, so that those after it compute as without a unit, to the bit.
        return value.movedim(-1, 1).contiguous() if self.site.channels_first else value

    @property
    def needs_routing(self) -> bool:
        """Whether tasks have their own weights here."""
        return any(len(bank._parameters) > 1 for bank in self.banks.values())

    def weights(self, rows: Tensor, taps: dict[str, Tensor] | None = None) -> SiteWeights:
        """The tensors for the rows of an input, and what was tapped for it."""
        routing = self.store.routing
        routed = None
        needs_routing = self.needs_routing
        if routing is not None and (needs_routing or routing.has_identity):
            routed = self.store.routed(routing, self.site, rows.shape[0], rows.device)
            if torch.is_grad_enabled() and self.store.training and torch.compiler.is_compiling():
                routing.used = True
        elif routing is None and needs_routing:
            raise RoutingError(
                f"`tasks` must be routed before the model is called, because {self.site.address} has weights "
                f"of its own for {', '.join(self.store.tasks)}, but none is. Use `with "
                "model.route(task=...)`."
            )
        return SiteWeights(self, routed, taps or {}, rows.device)


class SiteUnits:
    """The units at one module: those that change its output, only read its input, or call it themselves."""

    def __init__(self) -> None:
        self.units: list[SiteUnit] = []
        self.taps: list[tuple[SiteUnit, str]] = []
        self.wrapped: list[tuple[SiteUnit, str]] = []
        self.names: tuple[str, ...] = ()

    def wrap(self, unit: SiteUnit, name: str, module: nn.Module) -> None:
        """Let a unit call the module, by the field of its site that names it.

        Names of arguments are noted here, since no compiler looks them up.
        """
        base = type(module)._weft_base  # type: ignore[attr-defined]
        self.names = tuple(inspect.signature(base.forward).parameters)[1:]
        self.wrapped.append((unit, name))

    def forward(self, module_forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the module's own forward, and the units around it."""
        for each, name in self.taps:
            if each.store.enabled:
                each.tapped[name] = _first_input(args, kwargs)
        wrapped = [(each, name) for each, name in self.wrapped if each.store.enabled]
        if wrapped and args:
            args, kwargs = (), {**dict(zip(self.names, args, strict=False)), **kwargs}
        for each, name in wrapped:
            module_forward = partial(each.call, name, module_forward)
        enabled = [each for each in self.units if each.store.enabled and not each.unit.wraps]
        if not enabled:
            return module_forward(*args, **kwargs)
        inputs = _first_input(args, kwargs)
        for each in enabled:
            if each.unit.changes_input:
                inputs = each.before(inputs)
                args, kwargs = _with_first_input(inputs, args, kwargs)
        output = module_forward(*args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output
        for each in enabled:
            first = each.after(first, inputs)
        for each in enabled:
            if each.unit.finishes:
                first = each.finish(first)
        return (first, *output[1:]) if isinstance(output, tuple) else first


def _first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs[stream_name(kwargs)]


def _with_first_input(
    inputs: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (inputs, *args[1:]), kwargs
    return args, {**kwargs, stream_name(kwargs): inputs}


class AdaptedSite(Picklable):
    """Mixin of a module that units act at."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward, with the units around it."""
        return self.__dict__[_SITE].forward(super().forward, args, kwargs)  # type: ignore[misc]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        restore_attention(state)


def units_at(module: nn.Module) -> SiteUnits:
    """The units at a module, which becomes a site if it was none."""
    if _SITE not in module.__dict__:
        swap_class(module, AdaptedSite)
        module.__dict__[_SITE] = SiteUnits()
    units: SiteUnits = module.__dict__[_SITE]
    return units


def plain_forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """What a site's module returns without its units."""
    made_from = [vars(cls)["_weft_base"] for cls in type(module).__mro__ if "_weft_base" in vars(cls)]
    base = made_from[0] if made_from else type(module)
    result: Tensor = base.forward(module, inputs)
    return result


def site_units(model: nn.Module) -> Iterator[SiteUnit]:
    """Every unit at every site of a model."""
    for module in model.modules():
        if _SITE in module.__dict__:
            yield from module.__dict__[_SITE].units


def unlink(module: nn.Module) -> None:
    """Make a site an ordinary module again."""
    if module.__dict__.pop(_SITE, None) is not None:
        restore_class(module)
