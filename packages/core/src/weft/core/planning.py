"""The plan: sites, slots, shapes and counts of an adapted model, as pure data, before any weight exists."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from weft.core.backbone.components import full_parameters
from weft.core.backbone.fingerprint import Backbone, describe_backbone
from weft.core.backbone.module_paths import is_inside
from weft.core.backbone.needs import check_needs
from weft.core.backbone.owners import OwnersRule
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError
from weft.core.sharing import (
    SHARED,
    Groups,
    Rule,
    Sharing,
    check_groups,
    check_tasks,
    shared_in_words,
    slot_names,
)
from weft.core.unit.method import parse_method
from weft.core.unit.protocol import TensorSpec, UnitConfig


@dataclass(frozen=True, slots=True)
class PlannedBank:
    """One tensor at one slot address.

    Args:
        key: Key of the bank, such as `bottleneck.text.encoder.0.ffn.down.weight`; a slot's key adds `.` and
            its name.
        spec: What the unit asked for.
        slots: Names of the slots in order: those of the tasks and groups of tasks, or `shared`.
        path: A module the bank is near to, for its device.
        groups: Groups of tasks that share a slot, if any were declared.
    """

    key: str
    spec: TensorSpec
    slots: tuple[str, ...]
    path: str
    groups: Groups | None = None

    @property
    def parameters(self) -> int:
        """Parameters of all slots."""
        return len(self.slots) * math.prod(self.spec.shape)


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit at one site, of one of the plan's configurations.

    `banks` lead from the name of each tensor, as the unit reads it, to the key of its bank.
    """

    config: int
    site: Site
    banks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FullParameter:
    """A parameter of the backbone that is trained itself, because a component was named.

    `path` is its name in the backbone, `key` that in a checkpoint; a task of None stands for all.
    """

    path: str
    key: str
    component: str
    parameters: int
    task: str | None = None


@dataclass(frozen=True)
class Plan:
    """What attaching a method to a backbone gives.

    `str(plan)` is a table of the counts.

    Args:
        backbone: What the backbone is.
        configs: The method, one configuration per unit.
        tasks: The tasks in order; a task's id is its position.
        units: Every unit at every site.
        banks: Every bank by its key.
        full: Parameters of the backbone that are trained.
        backbone_parameters: All parameters of the backbone, tied ones once.
        owners: Rule by which images belong to rows, where a row may have any number of them.
        read_by_structure: Types of models within the backbone that no family declares.
        unread: Tower without sites to the reason.
    """

    backbone: Backbone
    configs: tuple[UnitConfig, ...]
    tasks: tuple[str, ...]
    units: tuple[PlannedUnit, ...]
    banks: Mapping[str, PlannedBank]
    full: tuple[FullParameter, ...]
    backbone_parameters: int
    owners: OwnersRule | None = None
    read_by_structure: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        """The plan itself: it is never changed."""
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that units act at, each once."""
        return tuple({unit.site.address: unit.site for unit in self.units}.values())

    @property
    def components(self) -> dict[str, int]:
        """Trainable parameters by component: words of the backbone, then the units by label."""
        counts: Counter[str] = Counter()
        for parameter in self.full:
            counts[parameter.component] += parameter.parameters
        for bank in self.banks.values():
            if bank.spec.trainable:
                counts[bank.key.partition(".")[0]] += bank.parameters
        return dict(counts)

    @property
    def trainable_parameters(self) -> int:
        """Parameters that are trained, in the backbone and in the banks."""
        return sum(self.components.values())

    @property
    def total_parameters(self) -> int:
        """Parameters of the backbone and of all banks."""
        return self.backbone_parameters + sum(bank.parameters for bank in self.banks.values())

    @property
    def percent(self) -> float:
        """Trainable parameters in per cent of all."""
        return 100 * self.trainable_parameters / self.total_parameters

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key to shape of every slot, as a checkpoint holds them; without the backbone's own parameters."""
        return {f"{bank.key}.{slot}": bank.spec.shape for bank in self.banks.values() for slot in bank.slots}

    def to_dict(self) -> dict[str, Any]:
        """The counts and the method as plain data, as `weft plan --json` prints them."""
        return {
            "method": [config.model_dump(mode="json") for config in self.configs],
            "tasks": list(self.tasks),
            "backbone": asdict(self.backbone),
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "percent": self.percent,
            "components": self.components,
            "sites": [site.address for site in self.sites],
            "read_by_structure": list(self.read_by_structure),
            "unread": dict(self.unread),
        }

    def __str__(self) -> str:
        """A table: one line per component, then the sums."""
        total = self.total_parameters
        rows = [*self.components.items(), ("trainable", self.trainable_parameters), ("total", total)]
        names = max(len(name) for name, _ in rows)
        numbers = max(len(f"{count:,}") for _, count in rows)
        lines = [
            f"{self.backbone.model_class} ({self.backbone.family}), {len(self.sites)} sites, "
            f"{len(self.tasks)} task{'s' if len(self.tasks) > 1 else ''}: {', '.join(self.tasks)}"
        ]
        for name, count in rows:
            lines.append(f"{name:<{names}}  {count:>{numbers},}  {100 * count / total:8.4f} %")
        if self.read_by_structure:
            lines.append(
                f"read by its structure, as no family declares it: {', '.join(self.read_by_structure)}"
            )
        lines += [f"no sites in {tower}: {reason}" for tower, reason in self.unread.items()]
        for config in self.configs:
            if config.sharing.groups or config.sharing.layers:
                lines += shared_in_words(config.label, config.sharing, config.parts)
        return "\n".join(lines)


def plan(
    model: nn.Module, config: Any, tasks: Sequence[str] | None = None, *, some_tasks: bool = False
) -> Plan:
    """Work out what attaching would give; the model is only looked at and may be on the meta device.

    Args:
        model: A backbone of a known family.
        config: A unit's configuration, a dictionary of one, or a list of them.
        tasks: Names of the tasks; None stands for one task.
        some_tasks: Whether they are some of those that groups of a policy name, as where a task is loaded alone.

    Raises:
        ConfigError: If the method is wrong, or its sharing means nothing here.
        AddressError: If it names something the backbone lacks.
        BackboneError: If the backbone's family is unknown.
    """
    names = check_tasks(tasks)
    configs = parse_method(config)
    sites = resolve(model)
    banks: dict[str, PlannedBank] = {}
    units: list[PlannedUnit] = []
    for index, one in enumerate(configs):
        chosen = one.select(sites)
        check_needs(one.method, one.needs, chosen, sites.family)
        check_groups(one.sharing, names, some_tasks=some_tasks)
        _check_sharing(one, chosen, sites)
        for site in chosen:
            _check_input(one, site)
            keys: dict[str, str] = {}
            for spec in one.tensors(site, sites):
                bank = _planned(one, site, spec, names)
                keys[spec.alias or spec.name] = bank.key
                _same_shape(banks.setdefault(bank.key, bank), bank, site, one)
            units.append(PlannedUnit(index, site, keys))
    full = tuple(_full(model, configs, sites))
    _check_gradients(configs, units, full)
    return Plan(
        backbone=describe_backbone(model, sites, {parameter.path for parameter in full}),
        configs=configs,
        tasks=names,
        units=tuple(units),
        banks=banks,
        full=full,
        backbone_parameters=sum(parameter.numel() for parameter in model.parameters()),
        owners=sites.owners,
        read_by_structure=sites.read_by_structure,
        unread=sites.unread,
    )


def slot_address(site: Site, spec: TensorSpec, sharing: Sharing) -> str:
    """Where the slots of a tensor of a site are: its address, with the axes taken out that the policy shares across."""
    rule, held = sharing.rule_at(site), sharing.at(site)
    axes = spec.axes(held)
    words = [_among(rule, "towers") or SHARED if "modality" in axes else (spec.modality or site.tower)]
    if site.stack:
        words.append(_among(rule, "stacks") if "stack" in axes else site.stack)
    if site.layer is not None:
        words.append(_layers(site.layer, rule, whole="layer" in axes, group=held.layer_group))
    words += [_among(rule, "blocks")] if "block" in axes else site.place
    return ".".join(word for word in words if word)


def _among(rule: Rule | None, name: str) -> str:
    """What a rule is restricted to, so that what is shared within it is not shared beyond it."""
    return "+".join(getattr(rule.where, name) or ()) if rule is not None else ""


def _layers(layer: int, rule: Rule | None, *, whole: bool, group: int) -> str:
    """The word for a layer, or for the layers that share; those of a rule's range are counted from its first."""
    span = None if rule is None else rule.where.range
    first, last = (0, None) if span is None else span
    if whole:
        return "all" if span is None else f"{first}-{last}"
    if group == 1:
        return str(layer)
    start = first + (layer - first) // group * group
    end = start + group - 1 if last is None else min(start + group - 1, last)
    return f"{start}-{end}"


def _planned(config: UnitConfig, site: Site, spec: TensorSpec, tasks: tuple[str, ...]) -> PlannedBank:
    held = config.sharing.at(site)
    key = f"{config.label}.{slot_address(site, spec, config.sharing)}.{spec.name}"
    if "task" in spec.axes(held):
        return PlannedBank(key, spec, (SHARED,), site.path)
    groups = spec.groups(held)
    return PlannedBank(key, spec, slot_names(tasks, groups), site.path, groups)


def _same_shape(first: PlannedBank, second: PlannedBank, site: Site, config: UnitConfig) -> None:
    assert first.slots == second.slots, "sites of one address are under one rule"
    if first.spec.shape != second.spec.shape:
        axes = second.spec.axes(config.sharing.at(site))
        raise ConfigError(
            f"`sharing` must join equal shapes, but shares `{second.spec.part}` across "
            f"{', '.join(sorted(axes))}, and `{second.spec.name}` is {first.spec.shape} at {first.path} and "
            f"{second.spec.shape} at {site.address}. Share it across fewer axes, or choose one tower."
        )


def _check_sharing(config: UnitConfig, chosen: Sequence[Site], sites: SiteMap) -> None:
    _check_parts(config, config.sharing, chosen, sites)
    for rule in config.sharing.layers:
        ruled = [site for site in chosen if site in rule.where]
        if not ruled:
            known = sorted({site.layer for site in chosen if site.layer is not None})
            raise ConfigError(
                f"a rule of `sharing.layers` must hold somewhere, but {config.method!r} acts at no site of "
                f"{rule.where}. It acts in {', '.join(sorted({site.tower for site in chosen}))}, "
                f"{', '.join(sorted({site.block for site in chosen}))}"
                f"{f', layers {known[0]} to {known[-1]}' if known else ''}."
            )
        _check_parts(config, rule.sharing, ruled, sites)


def _check_parts(config: UnitConfig, sharing: Sharing, chosen: Sequence[Site], sites: SiteMap) -> None:
    for part, axes in sharing.parts.items():
        if part not in config.parts:
            known = ", ".join(config.parts) or "none"
            raise ConfigError(
                f"`sharing` must name parts of the unit {config.method!r} ({known}), but names {part!r}. "
                "Remove it, or choose a method that has the part."
            )
        if "modality" not in axes:
            continue
        modalities: set[str] = {site.modality for site in chosen} | {site.tower for site in chosen}
        modalities |= {
            spec.modality for site in chosen for spec in config.tensors(site, sites) if spec.modality
        }
        if len(modalities) < 2:
            raise ConfigError(
                f"`sharing` may share `{part}` across `modality` only where there are several, but every "
                f"chosen site is of modality {', '.join(sorted(modalities))}. Choose more `towers`, or leave "
                "the axis out."
            )


def _check_input(config: UnitConfig, site: Site) -> None:
    if not site.role and site.in_width != site.out_width and config.build(site).reads_source:
        raise ConfigError(
            f"`layers` must be those whose sub-layers keep their width where {config.method!r} reads the input, but "
            f"{site.address} takes {site.in_width} features to {site.out_width}. Choose other `layers`, or a method "
            "that reads the output."
        )


def _check_gradients(
    configs: Sequence[UnitConfig], units: Sequence[PlannedUnit], full: Sequence[FullParameter]
) -> None:
    """Refuse what could not learn, because another unit runs its module without a graph."""
    stopped = {unit.site.path: unit.config for unit in units if configs[unit.config].stops_gradients}

    def owner(path: str) -> int | None:
        return next((config for front, config in stopped.items() if is_inside(path, (front,))), None)

    lost = [
        (configs[unit.config].label, unit.site.path) for unit in units if unit.config != owner(unit.site.path)
    ]
    lost += [(one.component, one.path) for one in full]
    for label, path in lost:
        found = owner(path)
        if found is not None:
            raise ConfigError(
                f"`method` {configs[found].label!r} must be alone in the layers it goes along, because they run "
                f"without a graph and nothing in them gets a gradient, but {label!r} would train {path}. Choose other "
                "`towers` for one of the two."
            )


def _full(model: nn.Module, configs: Sequence[UnitConfig], sites: SiteMap) -> Iterator[FullParameter]:
    claimed: set[str] = set()
    task_of = getattr(model, "task_of", lambda path: None)
    for config in configs:
        for word in config.words(sites):
            for path, key, count in full_parameters(model, sites, word, config.towers):
                if path not in claimed:
                    claimed.add(path)
                    yield FullParameter(path, key, word, count, task_of(path))
