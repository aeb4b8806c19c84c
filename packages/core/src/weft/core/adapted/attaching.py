"""Attaching: from a plan to an adapted model, in place, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from weft.core.adapted.bank import Store, filled_bank, store_of
from weft.core.adapted.model import AdaptedModel, route_checkpointing, with_frozen_statistics
from weft.core.adapted.module import SiteUnit, units_at, unlink
from weft.core.adapted.start_check import checked_start
from weft.core.adapted.subclassing import restore_class, swap_class
from weft.core.adapted.token_modality import image_tokens
from weft.core.all_or_nothing import all_or_nothing
from weft.core.errors import AttachError
from weft.core.planning import Plan, plan
from weft.core.unit.attention import reach_attention, release_attention

Model = TypeVar("Model", bound=nn.Module)


def attach(
    model: Model,
    config: Any,
    tasks: Sequence[str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    some_tasks: bool = False,
    check: Mapping[str, Any] | None = None,
) -> Model:
    """Adapt a model in place: freeze it, add the units, unfreeze what the method trains in full.

    The weights are drawn from torch's global generator, in the order of the plan. They live where their sites
    live.

    Args:
        model: A backbone of a known family, on any device, the meta device included.
        config: A unit's configuration, a dictionary of one, or a list of them.
        tasks: Names of the tasks; None stands for one task, which needs no routing.
        dtype: Dtype of the master weights; the computation runs in that of the activations.
        some_tasks: As for `plan`.
        check: A batch by the names of the model's arguments. The model is called with it before and after, and a
            `StartWarning` says how far its outputs moved, if they did: units start as the backbone unless their `init`
            says otherwise or they cannot. Rows belong to the first task, or to those of `task_ids` in the batch.

    Returns:
        The same object. It gains `weft` (banks, tasks and plan) and the methods of
        `weft.core.adapted.model.AdaptedModel`.

    Raises:
        AttachError: If the model has units already, or a site's module cannot be adapted.
        ConfigError, AddressError, BackboneError: As `plan` does.

    Whatever is raised, the model is as it was.
    """
    if isinstance(getattr(model, "weft", None), Store):
        raise AttachError(
            "`model` must be a plain backbone, but it has units already. Give a list of methods to attach "
            "several at once, or call `detach(model)` first."
        )
    planned = plan(model, config, tasks, some_tasks=some_tasks)
    for unit in planned.units:
        _check_called(model, unit.site.path)
    store = _store(model, planned, dtype)
    with all_or_nothing(model), checked_start(model, check, planned.configs):
        _link(model, planned, store)
        model.requires_grad_(False)
        named = dict(model.named_parameters())
        for full in planned.full:
            named[full.path].requires_grad_(True)
        model.add_module("weft", store.train(model.training))
        store.set_tasks(planned.tasks, _device(model, ""))
        store.own(model)
        swap_class(model, AdaptedModel)
        route_checkpointing(model, store)
        _check_counts(model, planned)
        if model.training:
            for norm in with_frozen_statistics(model):
                norm.eval()
    return model


def detach(model: Model) -> Model:
    """Remove all units and give every parameter back the trainability it had; the backbone's values stay.

    Raises:
        AttachError: If the model has no units.
    """
    store = store_of(model, then="There is nothing to detach.")
    resting = with_frozen_statistics(model)
    with all_or_nothing(model):
        for module in model.modules():
            release_attention(module)
            unlink(module)
        del model.weft
        restore_class(model)
        route_checkpointing(model, None)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(store.trained_before[name])
        for norm in resting:
            norm.train(model.training)
    return model


def _store(model: nn.Module, planned: Plan, dtype: torch.dtype) -> Store:
    """The store of a plan, its banks filled."""
    store = Store(planned.tasks, planned)
    if any("token_modality" in one.signals for one in planned.configs):
        store.image_tokens = image_tokens(model.config)
    store.owners_rule = planned.owners
    store.needs_owners = any(site.owned for site in planned.sites)
    store.trained_before = {name: value.requires_grad for name, value in model.named_parameters()}
    for bank in planned.banks.values():
        store.add(bank.key, filled_bank(bank.spec, bank.slots, dtype, _device(model, bank.path)))
    return store


def _link(model: nn.Module, planned: Plan, store: Store) -> None:
    for each in planned.units:
        unit = planned.configs[each.config].build(each.site)
        banks = {name: store.banks_by_key[key] for name, key in each.banks.items()}
        module = model.get_submodule(each.site.path)
        site_unit = SiteUnit(store, each.site, unit, banks, module)
        site_unit.start()
        if unit.changes_attention:
            reach_attention(module, each.site.path)
        units_at(module).units.append(site_unit)
        wiring = each.site.wiring
        if unit.reads_source and wiring.source not in (None, wiring.path):
            units_at(model.get_submodule(str(wiring.source))).taps.append((site_unit, "source"))
        for name in unit.wraps:
            if (path := getattr(wiring, name)) is not None:
                wrapped = model.get_submodule(path)
                units_at(wrapped).wrap(site_unit, name, wrapped)
        for name in unit.taps:
            if (path := getattr(wiring, name)) is not None:
                units_at(model.get_submodule(path)).taps.append((site_unit, name))


def _device(model: nn.Module, path: str) -> torch.device:
    for parameter in [*model.get_submodule(path).parameters(), *model.parameters()]:
        return parameter.device
    return torch.device("cpu")


def _check_called(model: nn.Module, path: str) -> None:
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise AttachError(
            f"`{path}` must be a module that is called, but torch's MultiheadAttention reads its weights "
            "without calling it, so a unit there would do nothing. Choose another block, or the attention as "
            "a whole."
        )


def _check_counts(model: nn.Module, planned: Plan) -> None:
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    total = sum(value.numel() for value in model.parameters())
    if (trainable, total) != (planned.trainable_parameters, planned.total_parameters):
        raise AssertionError(
            f"the plan counts {planned.trainable_parameters} trainable of {planned.total_parameters}, the "
            f"model {trainable} of {total}"
        )
