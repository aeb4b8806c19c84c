"""PEFT's format: LoRA and (IA)³ of one task, written so that PEFT loads them, and read back.

The keys of PEFT are module paths of one release of transformers; ours are addresses. Only weights that PEFT
can express are written: a unit on every chosen linear map, and of the backbone whole modules and biases.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from weft.core.adapted.attaching import attach
from weft.core.adapted.bank import Store
from weft.core.all_or_nothing import all_or_nothing
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import Site
from weft.core.errors import CheckpointError, unknown
from weft.core.files.interop.peft_full import fill, saved_in_full, trained_in_full, words_of
from weft.core.files.stored_files import read_tensors, read_words
from weft.core.planning import PlannedUnit
from weft.core.units.ia3 import IA3Config
from weft.core.units.lora import LoRAConfig

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
HALVES = {"LORA": ("lora_A", "lora_B"), "IA3": ("ia3_l",)}

Model = TypeVar("Model", bound=nn.Module)


def export_peft(model: nn.Module, folder: str | Path, *, task: str | None = None) -> None:
    """Write one task's LoRA or (IA)³ in PEFT's format, with what is trained in full beside it.

    Args:
        model: A model with one LoRA or (IA)³ unit.
        folder: Made if it is missing.
        task: The task written; needed if there are several and they do not share all weights.

    Raises:
        CheckpointError: If PEFT's format cannot hold what the model has.
    """
    store = _store(model)
    plan = store.plan
    adapters = [config for config in plan.configs if config.parts]
    if len(adapters) != 1 or not isinstance(adapters[0], LoRAConfig | IA3Config):
        methods = ", ".join(config.method for config in plan.configs)
        raise CheckpointError(
            f"`model` must have one unit of method lora or ia3 to be written for PEFT, but has {methods}. "
            "Save it "
            "with `save_pretrained` instead."
        )
    config = adapters[0]
    full, biases = trained_in_full(model, plan)
    if biases and isinstance(config, IA3Config):
        raise CheckpointError(
            f"`train_full` must not name biases beside (IA)³ to be written for PEFT, which trains {next(iter(biases))} "
            "and the like with LoRA alone. Save it with `save_pretrained` instead."
        )
    slot = _slot(store, task)
    if isinstance(config, LoRAConfig):
        tensors, words = _lora(store, config, slot)
    else:
        tensors, words = _ia3(store, slot)
    tensors |= {f"{_PREFIX}{name}": value for name, value in biases.items()}
    for path, state in full.items():
        tensors |= {f"{_PREFIX}{path}.{name}": value for name, value in state.items()}
    if isinstance(config, LoRAConfig):
        words["bias"] = "all" if biases else "none"
    words |= {
        "modules_to_save": sorted(full) or None,
        "base_model_name_or_path": plan.backbone.name or None,
        "task_type": None,
        "inference_mode": True,
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    part = target / f".{WEIGHTS}.part"
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
    settings = target / f".{CONFIG}.part"
    settings.write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    os.replace(part, target / WEIGHTS)
    os.replace(settings, target / CONFIG)


def import_peft(model: Model, folder: str | Path, *, task: str = "default") -> Model:
    """Attach a LoRA or an (IA)³ that PEFT saved; its `modules_to_save` and biases are trained in full.

    Args:
        model: A plain backbone of the class that PEFT wrapped.
        folder: What PEFT's `save_pretrained` wrote, with safetensors.
        task: Name the weights get.

    Returns:
        The same object, with a unit `lora` or `ia3`.

    Raises:
        CheckpointError: If the files are not there, or hold what these units on whole linear maps cannot
            express.
    """
    folder = Path(folder)
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"`folder` must hold {CONFIG} and {WEIGHTS}, but {' and '.join(absent)} is not in {folder}. Save "
            "with "
            "PEFT's `save_pretrained`."
        )
    words = read_words(folder / CONFIG, ["peft_type"], argument="folder")
    _check_plain(words)
    halves = HALVES[words["peft_type"]]
    sites = resolve(model)
    by_path: dict[str, list[Site]] = {}
    for site in sites.sites:
        if site.role:
            by_path.setdefault(site.path, []).append(site)
    tensors = read_tensors(folder / WEIGHTS, argument="folder")
    of_units = {name: value for name, value in tensors.items() if _path_and_half(name)[1] in halves}
    full: dict[str, Tensor] = {}
    if words.get("modules_to_save") or words.get("bias", "none") != "none":
        rest = {name.removeprefix(_PREFIX): tensors[name] for name in tensors if name not in of_units}
        full = saved_in_full(rest)
    found = _by_module(of_units if full else tensors, by_path, halves)
    chosen = [site for path in found for site in by_path[path]]
    places: dict[str, Any] = {
        "linears": tuple(dict.fromkeys(site.role for site in chosen)),
        "blocks": tuple(dict.fromkeys(site.block for site in chosen)),
        "towers": tuple(dict.fromkeys(site.tower for site in chosen)),
        "stacks": tuple(dict.fromkeys(site.stack for site in chosen if site.stack)) or None,
        "layers": tuple(sorted({site.layer for site in chosen if site.layer is not None})),
    }
    if full:
        places["train_full"] = words_of(model, sites, places["towers"], full)
    config = (
        LoRAConfig.model_validate({**places, **_lora_options(words)})
        if words["peft_type"] == "LORA"
        else IA3Config.model_validate(places)
    )
    selected = {site.address for site in config.select(sites)}
    if selected != {site.address for site in chosen}:
        extra = sorted(selected - {site.address for site in chosen})
        raise CheckpointError(
            "`folder` must adapt the same maps in every chosen layer and block, but lacks "
            f"{', '.join(extra[:5])}. "
            "Train it with maps that can be chosen by role, block, tower and layer."
        )
    slots = {site.address: _slots(site, found[site.path]) for site in chosen}
    with all_or_nothing(model) as kept, torch.no_grad():
        attach(model, config, [task])
        store = _store(model)
        for unit in store.plan.units:
            for name, value in slots[unit.site.address].items():
                _parameter(store, unit, name, task).copy_(value)
        fill(model, full, kept)
    return model


def _lora_options(words: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rank": words["r"],
        "alpha": words["lora_alpha"],
        "rank_stabilised": bool(words.get("use_rslora")),
        "dropout": words.get("lora_dropout", 0.0),
    }


def _slots(site: Site, halves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors of a map, from those of PEFT."""
    first, last = site.rows or (0, site.out_width)
    if "ia3_l" not in halves:
        return {"down.weight": halves["lora_A"].T, "up.weight": halves["lora_B"][first:last].T}
    factors = halves["ia3_l"]
    of_input = factors.shape[0] == 1
    if of_input != (site.role == "down"):
        ours, theirs = ("output", "input") if of_input else ("input", "output")
        raise CheckpointError(
            f"`folder` must scale the {ours} of {site.path}, which is {site.address}, but scales its {theirs}. "
            "Set PEFT's `feedforward_modules` to the maps out of the feed-forward blocks alone."
        )
    return {"scale": factors[0] if of_input else factors[first:last, 0]}


def _lora(store: Store, config: LoRAConfig, slot: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path, units in _by_path(store).items():
        downs, ups = [], []
        for unit in units:
            up = _parameter(store, unit, "up.weight", slot)
            first, last = unit.site.rows or (0, unit.site.out_width)
            downs.append(_parameter(store, unit, "down.weight", slot).T)
            ups.append(nn.functional.pad(up, (first, unit.site.out_width - last)).T)
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = torch.cat(downs)
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = torch.cat(ups, dim=1)
        if config.magnitude:
            if len(units) > 1 or units[0].site.rows is not None:
                raise CheckpointError(
                    f"`magnitude` must be of whole maps to be written for PEFT, but {path} joins several. Save "
                    "it with `save_pretrained` instead."
                )
            tensors[f"{_PREFIX}{path}.lora_magnitude_vector"] = _parameter(store, units[0], "magnitude", slot)
        if len(units) > 1:
            ranks[path] = config.rank * len(units)
    # PEFT divides by the rank of each map; the factor of maps that join several of ours stays the same.
    root = 0.5 if config.rank_stabilised else 1.0
    return tensors, {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": config.scale * config.rank**root,
        "use_rslora": config.rank_stabilised,
        "use_dora": config.magnitude,
        "lora_dropout": config.dropout,
        "target_modules": sorted(_by_path(store)),
        "rank_pattern": ranks,
        "alpha_pattern": {path: config.scale * rank**root for path, rank in ranks.items()},
    }


def _ia3(store: Store, slot: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    inputs = []
    for path, units in _by_path(store).items():
        site = units[0].site
        if site.role == "down":
            inputs.append(path)
            tensors[f"{_PREFIX}{path}.ia3_l"] = _parameter(store, units[0], "scale", slot)[None]
            continue
        factors = torch.ones(site.out_width)
        for unit in units:
            first, last = unit.site.rows or (0, site.out_width)
            factors[first:last] = _parameter(store, unit, "scale", slot).detach().cpu()
        tensors[f"{_PREFIX}{path}.ia3_l"] = factors[:, None]
    return tensors, {
        "peft_type": "IA3",
        "target_modules": sorted(_by_path(store)),
        "feedforward_modules": sorted(inputs),
    }


def _by_path(store: Store) -> dict[str, list[PlannedUnit]]:
    found: dict[str, list[PlannedUnit]] = {}
    for unit in store.plan.units:
        found.setdefault(unit.site.path, []).append(unit)
    return found


def _parameter(store: Store, unit: PlannedUnit, tensor: str, slot: str) -> Tensor:
    return store.banks_by_key[unit.banks[tensor]].slot_of(slot)


def _slot(store: Store, task: str | None) -> str:
    if task is None:
        if len(store.tasks) > 1 and any(len(bank.slots) > 1 for bank in store.banks_by_key.values()):
            raise CheckpointError(
                f"`task` must be given, because PEFT's format holds one task and the model has "
                f"{', '.join(store.tasks)}. Choose one."
            )
        return store.tasks[0]
    if task not in store.tasks:
        raise CheckpointError(unknown("`task`", task, store.tasks))
    return task


def _check_plain(words: Mapping[str, Any]) -> None:
    if words.get("peft_type") not in HALVES:
        raise CheckpointError(
            f"`folder` must hold a LoRA or (IA)³ of PEFT, but its peft_type is {words.get('peft_type')!r}. Other "
            "kinds are not read."
        )
    odd = [
        name for name in ("rank_pattern", "alpha_pattern", "use_dora", "fan_in_fan_out") if words.get(name)
    ]
    if odd:
        raise CheckpointError(
            f"`folder` must hold plain maps of one rank, but sets {', '.join(odd)}. Merge it in PEFT, or train it "
            "anew."
        )


def _path_and_half(name: str) -> tuple[str, str]:
    path, _, half = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
    return path, half


def _by_module(
    tensors: Mapping[str, Tensor], by_path: Mapping[str, list[Site]], halves: tuple[str, ...]
) -> dict[str, dict[str, Tensor]]:
    """Path of each map to PEFT's tensors of it, by the last word of their names."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        path, half = _path_and_half(name)
        if half not in halves:
            raise CheckpointError(
                f"`folder` must hold {' and '.join(halves)} alone, but holds {name}. Merge it in PEFT."
            )
        if path not in by_path:
            raise CheckpointError(unknown("a module of `folder`", path, by_path))
        found.setdefault(path, {})[half] = value
    for path, values in found.items():
        if len(values) != len(halves):
            raise CheckpointError(f"`folder` must hold both halves of {path}, but lacks one. Save it again.")
    return found


def _store(model: nn.Module) -> Store:
    store = getattr(model, "weft", None)
    if not isinstance(store, Store):
        raise CheckpointError("`model` must have units, but has none. Call `attach` first.")
    return store
