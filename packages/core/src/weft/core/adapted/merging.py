"""Merging: units whose work is linear go into the backbone's own weights, and come out again bit for bit.

Only LoRA, DoRA and (IA)³ can be merged; what a merged map returns is measured against what the unit
returned, because weights are rounded to the backbone's dtype.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from weft.core.adapted.attaching import detach
from weft.core.adapted.bank import Store, store_of
from weft.core.adapted.module import SiteUnit, site_units
from weft.core.adapted.routing import route_names
from weft.core.all_or_nothing import Kept, all_or_nothing
from weft.core.backbone.components import names_by_parameter
from weft.core.errors import AttachError, ConfigError, unknown
from weft.core.files.plain import save_plain
from weft.core.unit.layers import is_map
from weft.core.unit.protocol import Unit


@dataclass(frozen=True, slots=True)
class Merged:
    """What merging did.

    Args:
        maps: Number of maps whose weights were changed.
        error: Largest difference between what a merged map and its unit return on random inputs, relative to
            the largest value returned.
    """

    maps: int
    error: float


def merge(model: nn.Module, *, task: str | None = None) -> Merged:
    """Put the units of one task into the backbone's weights and detach them: a plain model is left.

    Args:
        model: An adapted model whose units are LoRA or (IA)³.
        task: The task; needed if there are several and they do not share all weights.

    Returns:
        How many maps were changed and the error that was measured.

    Raises:
        AttachError: If the model has no units, or one that is not linear, or a map cannot take the change.
            Nothing is changed then.
        ConfigError: If the task is unknown, or must be given.
    """
    with all_or_nothing(model) as kept:
        report = _merge(model, task, kept)
        detach(model)
    return report


@contextlib.contextmanager
def merged(model: nn.Module, *, task: str | None = None) -> Iterator[Merged]:
    """Run with the units of one task inside the backbone's weights; afterwards both are as before, bit for bit.

    Arguments are those of `merge`.

    Raises:
        AttachError, ConfigError: As `merge` does.
    """
    with all_or_nothing(model) as kept:
        report = _merge(model, task, kept)
    store: Store = model.weft  # type: ignore[assignment]
    try:
        with store.using(store.routing, False):
            yield report
    finally:
        kept.put_back()


def save_merged(model: nn.Module, folder: str | Path, *, task: str | None = None) -> Merged:
    """Write the model of one task as a plain folder, its units put into the weights.

    The folder is made if it is missing; the other arguments are those of `merge`. Afterwards the model is as before,
    bit for bit.

    Returns:
        How many maps were changed, and the error that was measured on them.

    Raises:
        AttachError, ConfigError: As `merge` does.
        CheckpointError: As `weft.core.files.plain.save_plain` does.
    """
    with merged(model, task=task) as report:
        save_plain(model, folder)
    return report


def _merge(model: nn.Module, task: str | None, kept: Kept) -> Merged:
    store = store_of(model, then="There is nothing to merge.")
    units = list(site_units(model))
    for each in units:
        if type(each.unit).merge is Unit.merge:
            raise AttachError(
                f"`model` must have linear units alone to be merged, but that at {each.site.address} is a "
                f"{type(each.unit).__name__}. Merge LoRA and (IA)³; keep others as units."
            )
    _check_task(store, task)
    names = names_by_parameter(model)
    modules: dict[int, list[SiteUnit]] = {}
    for each in units:
        modules.setdefault(id(each.module), []).append(each)
        _check_map(each, names)
    errors = []
    routing = route_names(task or store.tasks[0], store.tasks, store.presence.seen.device)
    # What dropout does is no error of the merged weights.
    with torch.no_grad(), store.setting("training", False), store.using(routing, True):
        for group in modules.values():
            module = group[0].module
            for value in (module.weight, module.bias):
                if isinstance(value, Tensor):
                    kept.keep(value)
            probe = _probe(module)
            adapted = module(probe)
            given = [each.weights(probe) for each in group]
            if len(group) > 1:
                # A unit computes with the backbone's own weights, whatever was merged before it.
                own = _copy_of_map(module)
                for weights in given:
                    weights.module = own
            # What a unit does to the input comes first in the computation, so it is merged into all the rest.
            pairs = zip(group, given, strict=True)
            for each, weights in sorted(pairs, key=lambda pair: pair[0].unit.changes_input):
                each.unit.merge(each.module, weights)
            with store.using(store.routing, False):
                plain = module(probe)
            scale = adapted.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            errors.append((plain - adapted).abs().max() / scale)
    error = float(torch.stack([value.float().cpu() for value in errors]).max()) if errors else 0.0
    return Merged(len(modules), error)


def _copy_of_map(module: nn.Module) -> nn.Module:
    """A module that holds the values which the weight and the bias of a map have now."""
    held = nn.Module()
    for name in ("weight", "bias"):
        value = getattr(module, name)
        held.register_buffer(name, value if value is None else value.detach().clone())
    return held


def _probe(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, 16, weight.shape[1], generator=generator)
    if weight.dim() == 4:  # a 1×1 convolution reads places behind its channels
        probe = probe.mT[..., None]
    return probe.to(weight.device, weight.dtype)


def _check_task(store: Store, task: str | None) -> None:
    if task is not None and task not in store.tasks:
        raise ConfigError(unknown("`task`", task, store.tasks))
    if task is None and any(len(bank.slots) > 1 for bank in store.banks_by_key.values()):
        raise ConfigError(
            f"`task` must be given, because a weight can hold one task and the model has {', '.join(store.tasks)}. "
            "Choose one."
        )


def _check_map(each: SiteUnit, names: dict[int, list[str]]) -> None:
    weight = getattr(each.module, "weight", None)
    if not is_map(weight):
        raise AttachError(
            f"`model` must have weights of floating-point numbers where units are merged, but "
            f"{each.site.address} is a {type(each.module).__name__}. Load the backbone without quantisation."
        )
    tied = names.get(id(weight), [])
    if len(tied) > 1:
        raise AttachError(
            f"`model` must have weights of their own where units are merged, but {tied[0]} and "
            f"{', '.join(tied[1:])} are one. Keep the unit, or untie them."
        )
