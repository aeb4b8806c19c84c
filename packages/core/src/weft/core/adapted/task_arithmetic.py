"""Arithmetic with tasks: a new task whose slots are computed from those of others.

Sums, differences and multiples are what they say where a unit's work is linear in its slots: LoRA and (IA)³.
Of other units the slots can be averaged, which is a mean of weights, not of what they compute.

Source: task vectors, their sums and negation are of Ilharco et al. 2023, "Editing Models with Task
Arithmetic".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from weft.core.adapted.bank import store_of
from weft.core.adapted.module import SiteUnit, site_units
from weft.core.adapted.tasks import add_task
from weft.core.all_or_nothing import all_or_nothing
from weft.core.errors import ConfigError, unknown
from weft.core.sharing import SHARED, check_tasks, slot_name


def combine_tasks(model: nn.Module, task: str, weights: Mapping[str, float]) -> float:
    """Add a task that does `Σ weight · (what each task's units do)`.

    `{"vqa": 0.5, "gqa": 0.5}` is their mean, `{"vqa": 1, "gqa": 1}` their sum, `{"vqa": -1}` the negation.

    Args:
        model: An adapted model in which tasks have their own slots.
        task: Name of the new task.
        weights: Task to its factor.

    Returns:
        Largest error over all sites, relative to what was to be computed: 0 where the slots can hold the
        result, more where LoRA's rank is too small for it.

    Raises:
        ConfigError: If a task is unknown, the new name is not allowed, or a unit is not linear and the factors
            are not those of a mean. The model is unchanged then.
        AttachError: If the model has no units, or is wrapped for data-parallel training.
    """
    store = store_of(model)
    if not weights:
        raise ConfigError(
            "`weights` must name a task, but is empty. Write for instance {'vqa': 0.5, 'gqa': 0.5}."
        )
    for name in weights:
        if name not in store.tasks:
            raise ConfigError(unknown("`weights`", name, store.tasks))
    if not any(_own(each) for each in site_units(model)):
        raise ConfigError(
            "`sharing` must give tasks slots of their own for a task to be computed from others, but all are "
            "shared. Train with `sharing: multiple` or `half`."
        )
    check_tasks((*store.tasks, task))
    for key, bank in store.plan.banks.items():
        if slot_name(task, bank.groups) in bank.slots:
            raise ConfigError(
                f"`task` must not be in a group whose slot other tasks use, but {task!r} is at {key}. Take another "
                "name."
            )
    values: dict[tuple[str, str], torch.Tensor] = {}
    worst = 0.0
    with torch.no_grad():
        for each in site_units(model):
            found, error = _combine(each, weights)
            worst = max(worst, error)
            for name, value in found.items():
                key = next(key for key, bank in store.banks_by_key.items() if bank is each.banks[name])
                values[key, task] = value
    with all_or_nothing(model), torch.no_grad():
        add_task(model, task)
        for (key, _), value in values.items():
            store.banks_by_key[key].slot_of(task).copy_(value)
    return worst


def _own(each: SiteUnit) -> frozenset[str]:
    """The tensors of which every task has its own slot."""
    return frozenset(name for name, bank in each.banks.items() if bank.slots != (SHARED,))


def _combine(each: SiteUnit, weights: Mapping[str, float]) -> tuple[dict[str, torch.Tensor], float]:
    slots = {name: torch.stack([bank.slot_of(task) for task in weights]) for name, bank in each.banks.items()}
    own = _own(each)
    if not own:
        return {}, 0.0
    factors = torch.tensor(list(weights.values()), dtype=torch.float64)
    found, error = each.unit.combine(slots, factors, own)
    return {name: value for name, value in found.items() if name in own}, error
