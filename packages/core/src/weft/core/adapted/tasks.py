"""Tasks that come and go: slots are added to and removed from a model that is adapted already."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from weft.core.adapted.bank import Bank, Store, store_of
from weft.core.adapted.module import site_units
from weft.core.all_or_nothing import all_or_nothing
from weft.core.errors import AttachError, ConfigError, unknown
from weft.core.planning import PlannedBank
from weft.core.sharing import SHARED, check_tasks, slot_name, slot_names, tasks_of
from weft.core.unit.protocol import UnitConfig


def add_task(model: nn.Module, task: str, *, like: str | None = None) -> None:
    """Give a new task its own slots wherever the tasks have any; its id is the next one.

    Where the method's groups name the task, it shares the slot of its group. Slots are newly drawn, or copied from
    those of the task `like`.

    Make the optimiser afterwards: one that exists does not know the new slots.

    Raises:
        ConfigError: If the name is not allowed or taken, or `like` is no task.
        AttachError: If the model is wrapped for data-parallel training.
    """
    store = _free_store(model)
    check_tasks((*store.tasks, task))
    if like is not None and like not in store.tasks:
        raise ConfigError(unknown("`like`", like, store.tasks))
    with all_or_nothing(model):
        planned = store.plan.banks
        drawn = {
            bank for key, bank in store.banks_by_key.items() if _add_slot(bank, planned[key], task, like)
        }
        if like is None:
            for unit in site_units(model):
                unit.start(task, drawn)
        _set_tasks(store, (*store.tasks, task))


def remove_task(model: nn.Module, task: str) -> None:
    """Remove a task and its slots; the ids of later tasks move down by one.

    Raises:
        ConfigError: If there is no such task, or no other.
        AttachError: If the model is wrapped for data-parallel training.
    """
    store = _free_store(model)
    if task not in store.tasks:
        raise ConfigError(unknown("`task`", task, store.tasks))
    left = tuple(name for name in store.tasks if name != task)
    if not left:
        raise ConfigError(
            f"`task` must leave another task, but {task!r} is the only one. Call `detach(model)`."
        )
    with all_or_nothing(model):
        for bank in store.banks_by_key.values():
            for slot in bank.slots:
                if slot != SHARED and not set(left).intersection(tasks_of(slot)):
                    del bank._parameters[slot]
        _set_tasks(store, left)


def check_wrapped(model: nn.Module, store: Store) -> None:
    """Refuse a forward pass in which DistributedDataParallel would not reduce all that is trained.

    It fixes the trained parameters when it wraps a model; what is unfrozen later would silently differ
    between processes.

    Raises:
        AttachError: If the trained parameters are not those of the first pass in the wrapper.
    """
    if DistributedDataParallel._get_active_ddp_module() is None:
        return
    trained = sum(1 for value in model.parameters() if value.requires_grad)
    if store.wrapped_parameters is None:
        store.wrapped_parameters = trained
    elif store.wrapped_parameters != trained:
        raise AttachError(
            f"`requires_grad` must stay as it was when the model was wrapped for data-parallel training "
            f"({store.wrapped_parameters} trained parameters), but there are {trained} now. Change it on the plain "
            "model, then wrap again."
        )


def _free_store(model: nn.Module) -> Store:
    store = store_of(model)
    if store.wrapped_parameters is not None:
        raise AttachError(
            "`model` must not be wrapped for data-parallel training when its tasks change, but it was called in "
            "DistributedDataParallel, which would not reduce the new slots. Change the tasks first, then wrap."
        )
    return store


def _add_slot(bank: Bank, planned: PlannedBank, task: str, like: str | None) -> bool:
    """Give a bank the slot of a task; whether it had none."""
    slot = slot_name(task, planned.groups)
    if bank.slots == (SHARED,) or slot in bank.slots:
        return False
    first = next(iter(bank.parameters()))
    value = torch.empty_like(first)
    with torch.no_grad():
        if like is not None:
            value.copy_(bank.slot_of(like))
        elif not value.is_meta:
            planned.spec.init(value)
    bank._parameters[slot] = nn.Parameter(value, requires_grad=first.requires_grad)
    return True


def _set_tasks(store: Store, tasks: tuple[str, ...]) -> None:
    banks = {
        key: bank if bank.slots == (SHARED,) else replace(bank, slots=slot_names(tasks, bank.groups))
        for key, bank in store.plan.banks.items()
    }
    configs = tuple(_knowing(config, tasks) for config in store.plan.configs)
    store.plan = replace(store.plan, tasks=tasks, banks=banks, configs=configs)
    store.routing = None
    for key, bank in store.banks_by_key.items():
        bank.put_in_order(banks[key].slots)
    store.set_tasks(tasks, store.presence.seen.device)


def _knowing(config: UnitConfig, tasks: tuple[str, ...]) -> UnitConfig:
    """The configuration whose groups hold every task, so that it says again what the model has."""
    sharing = config.sharing
    for task in tasks:
        sharing = sharing.with_task(task)
    return config if sharing == config.sharing else config.model_copy(update={"sharing": sharing})
