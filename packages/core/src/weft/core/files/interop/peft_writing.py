"""From our units to the tensors and settings by which PEFT computes the same.

PEFT has one unit for a map. Where a map has several of ours, fused or one on top of another, their ranks are side by
side in it. Of one task, every unit is written as it is at each site, however its weights are shared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.adapted.bank import Store
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft_keys import PREFIX
from weft.core.files.interop.peft_reading import ROLES
from weft.core.files.interop.peft_settings import MAGNITUDE, MATRICES, patterns_for, tidy
from weft.core.planning import PlannedUnit
from weft.core.units.ia3 import IA3Config
from weft.core.units.lora import LoRAConfig, norms
from weft.core.units.vera import VeRAConfig

Written = tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]


class Units:
    """The units of one task of an adapted model, by the map they act at."""

    def __init__(self, model: nn.Module, store: Store, task: str) -> None:
        self._model = model
        self._store = store
        self._task = task
        self.by_path: dict[str, list[PlannedUnit]] = {}
        for unit in store.plan.units:
            self.by_path.setdefault(unit.site.path, []).append(unit)
        for units in self.by_path.values():
            units.sort(key=lambda unit: unit.site.rows or (0, 0))

    def config(self, unit: PlannedUnit) -> Any:
        """The configuration of a unit."""
        return self._store.plan.configs[unit.config]

    def value(self, unit: PlannedUnit, tensor: str) -> Tensor:
        """A tensor of a unit, on the CPU."""
        return self._store.banks_by_key[unit.banks[tensor]].slot_of(self._task).detach().cpu()

    def lengths(self, path: str) -> Tensor:
        """Norm of the weights of each output of a map, on the CPU."""
        weight: Tensor = self._model.get_submodule(path).weight  # type: ignore[assignment]
        return norms(weight.detach()).cpu()


def lora_as_peft(units: Units, configs: Sequence[LoRAConfig]) -> Written:
    """Tensors, settings and further words of the file, of one or more configurations of LoRA.

    Raises:
        CheckpointError: If PEFT's format cannot hold them.
    """
    _check_alike(configs)
    first = configs[0]
    stabilised = all(config.rank_stabilised for config in configs)
    root = 0.5 if stabilised else 1.0
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for path, here in units.by_path.items():
        if first.magnitude:
            tensors[f"{PREFIX}{path}.{MAGNITUDE}"] = _magnitude(units, path, here)
        scale = units.config(here[0]).scale
        downs, ups = [], []
        for unit in here:
            up = units.value(unit, "up.weight")
            if (own := units.config(unit).scale) != scale:
                up = up * (own / scale)
            begin, end = unit.site.rows or (0, unit.site.out_width)
            downs.append(units.value(unit, "down.weight").T)
            ups.append(nn.functional.pad(up, (begin, unit.site.out_width - end)).T)
        tensors[f"{PREFIX}{path}.lora_A.weight"] = torch.cat(downs)
        tensors[f"{PREFIX}{path}.lora_B.weight"] = torch.cat(ups, dim=1)
        ranks[path] = sum(units.config(unit).rank for unit in here)
        # PEFT divides by the rank of each map; the factor of maps that join several of ours stays the same.
        alphas[path] = tidy(scale * ranks[path] ** root)
    alpha = tidy(first.scale * first.rank**root)
    settings = {
        "peft_type": "LORA",
        "r": first.rank,
        "lora_alpha": alpha,
        "use_rslora": stabilised,
        "use_dora": first.magnitude,
        "lora_dropout": first.dropout,
        "target_modules": sorted(units.by_path),
        "rank_pattern": patterns_for(ranks, first.rank),
        "alpha_pattern": patterns_for(alphas, alpha),
    }
    return tensors, settings, _roles(units)


def ia3_as_peft(units: Units, configs: Sequence[IA3Config]) -> Written:
    """Tensors, settings and further words of the file, of one or more configurations of (IA)³."""
    tensors: dict[str, Tensor] = {}
    inputs = []
    for path, here in units.by_path.items():
        site = here[0].site
        of_input = site.role == "down"
        factors = torch.ones(site.in_width if of_input else site.out_width)
        for unit in here:
            first, last = (0, site.in_width) if of_input else unit.site.rows or (0, site.out_width)
            factors[first:last] *= units.value(unit, "scale")
        tensors[f"{PREFIX}{path}.ia3_l"] = factors[None] if of_input else factors[:, None]
        if of_input:
            inputs.append(path)
    settings = {
        "peft_type": "IA3",
        "target_modules": sorted(units.by_path),
        "feedforward_modules": sorted(inputs),
    }
    return tensors, settings, _roles(units)


def vera_as_peft(units: Units, configs: Sequence[VeRAConfig]) -> Written:
    """Tensors, settings and further words of the file, of one configuration of VeRA.

    Raises:
        CheckpointError: If there are several, or maps have matrices of their own or are parts of fused ones.
    """
    every = [unit for here in units.by_path.values() for unit in here]
    own = [unit for unit in every if unit.site.rows is not None]
    if len({(unit.banks["down.weight"], unit.banks["up.weight"]) for unit in every}) > 1 or own:
        what = (
            f"{own[0].site.address} is part of a fused map" if own else "some maps have a pair of their own"
        )
        raise CheckpointError(
            "`model` must have one pair of matrices for all maps, each of them whole, to be written for PEFT's VeRA, "
            f"but {what}. Save it with `save_pretrained` instead."
        )
    tensors = {
        key: units.value(every[0], name).T
        for key, name in zip(MATRICES, ("down.weight", "up.weight"), strict=True)
    }
    for path, (unit,) in units.by_path.items():
        tensors[f"{PREFIX}{path}.vera_lambda_d"] = units.value(unit, "down.scale")
        tensors[f"{PREFIX}{path}.vera_lambda_b"] = units.value(unit, "up.scale")
    settings = {
        "peft_type": "VERA",
        "r": configs[0].rank,
        "vera_dropout": configs[0].dropout,
        "d_initial": configs[0].start,
        "save_projection": True,
        "target_modules": sorted(units.by_path),
    }
    return tensors, settings, {}


def _roles(units: Units) -> dict[str, str]:
    """Of each fused map, the roles that have a unit, with their ranks, so that they come back as they were."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path, here in units.by_path.items():
        if all(unit.site.rows is None for unit in here):
            continue
        ranks: dict[str, int] = {}
        for unit in here:
            ranks[unit.site.role] = ranks.get(unit.site.role, 0) + getattr(units.config(unit), "rank", 1)
        found[path] = list(ranks.items())
    return {ROLES: json.dumps(found)} if found else {}


def _magnitude(units: Units, path: str, here: Sequence[PlannedUnit]) -> Tensor:
    if len({unit.site.address for unit in here}) < len(here):
        raise CheckpointError(
            f"`model` must have one unit at a map with `magnitude` to be written for PEFT, but {path} has several. "
            "Save it with `save_pretrained` instead."
        )
    if here[0].site.rows is None:
        return units.value(here[0], "magnitude")
    # Outputs that no unit changes keep the length they have.
    found = units.lengths(path)
    for unit in here:
        first, last = unit.site.rows or (0, unit.site.out_width)
        found[first:last] = units.value(unit, "magnitude")
    return found


def _check_alike(configs: Sequence[LoRAConfig]) -> None:
    for name in ("dropout", "magnitude"):
        values = {getattr(config, name) for config in configs}
        if len(values) > 1:
            raise CheckpointError(
                f"`{name}` must be the same in all units to be written for PEFT, which has one for all maps, but is "
                f"{' and '.join(str(value) for value in sorted(values))}. Save it with `save_pretrained` instead."
            )
