"""PEFT's format: LoRA, DoRA, (IA)³ and VeRA of one task, written so that PEFT loads them, and read back.

The keys of PEFT are module paths of one release of transformers; ours are addresses. Only weights that PEFT
can express are written: units on linear maps, and of the backbone whole modules and biases. HydraLoRA and MTL-LoRA have
no counterpart in PEFT 0.21.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from weft.core.adapted.attaching import attach
from weft.core.adapted.bank import Store, store_of
from weft.core.all_or_nothing import all_or_nothing
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SiteMap
from weft.core.errors import CheckpointError, unknown
from weft.core.files.interop.choices import configured, fill_units
from weft.core.files.interop.peft_files import CONFIG, WEIGHTS, PeftFiles
from weft.core.files.interop.peft_full import fill, trained_in_full, words_of
from weft.core.files.interop.peft_keys import PREFIX, path_and_half, stored_maps, trained_beside
from weft.core.files.interop.peft_reading import ROLES, parts_of
from weft.core.files.interop.peft_settings import MATRICES, check_settings
from weft.core.files.interop.peft_writing import Units, Written, ia3_as_peft, lora_as_peft, vera_as_peft
from weft.core.files.interop.vllm import check_served, one_rank
from weft.core.files.stored_files import check_present, open_tensors, read_tensors, read_words
from weft.core.unit.protocol import UnitConfig
from weft.core.units.frozen import FrozenConfig
from weft.core.units.ia3 import IA3Config
from weft.core.units.lora import LoRAConfig
from weft.core.units.vera import VeRAConfig

Model = TypeVar("Model", bound=nn.Module)
_WRITERS: dict[type[UnitConfig], Callable[[Units, Sequence[Any]], Written]] = {
    LoRAConfig: lora_as_peft,
    IA3Config: ia3_as_peft,
    VeRAConfig: vera_as_peft,
}


def export_peft(
    model: nn.Module, folder: str | Path, *, task: str | None = None, with_full: bool = True
) -> None:
    """Write one task's LoRA, DoRA, (IA)³ or VeRA in PEFT's format, with what is trained in full beside it.

    Args:
        model: A model whose units are all LoRA, all (IA)³, or all VeRA.
        folder: Made if it is missing.
        task: The task written; needed if there are several and they do not share all weights.
        with_full: Whether what is trained in full is written too. Without it, the adapter belongs on the backbone
            that `weft.core.files.plain.save_plain` writes.

    Raises:
        CheckpointError: If PEFT's format cannot hold what the model has.
    """
    as_peft(model, task=task, with_full=with_full).write(folder)


def export_vllm(
    model: nn.Module, folder: str | Path, *, task: str | None = None, with_full: bool = True
) -> int:
    """Write one task's LoRA so that vLLM computes the same; see `weft.core.files.interop.vllm`.

    Arguments are those of `export_peft`.

    Returns:
        The rank of all maps.

    Raises:
        CheckpointError: If vLLM could not take it, with what can be done instead.
    """
    check_served(store_of(model, CheckpointError).plan, with_full)
    files = one_rank(as_peft(model, task=task, with_full=with_full))
    files.write(folder)
    return int(files.words["r"])


def as_peft(model: nn.Module, *, task: str | None = None, with_full: bool = True) -> PeftFiles:
    """What `export_peft` writes, of the same arguments.

    Raises:
        CheckpointError: As `export_peft` does.
    """
    store = store_of(model, CheckpointError)
    plan = store.plan
    adapters = [config for config in plan.configs if config.parts]
    kinds = {type(config) for config in adapters}
    write = _WRITERS.get(kinds.pop()) if len(kinds) == 1 else None
    if write is None:
        methods = ", ".join(config.method for config in plan.configs)
        raise CheckpointError(
            "`model` must have units of method lora alone, ia3 alone, or vera alone, to be written for PEFT, but has "
            f"{methods}. Train `method: lora` for other libraries, or save this one with `save_pretrained` instead."
        )
    paths = {each.path for each in plan.full} if with_full else set()
    full, biases = trained_in_full(model, paths, {unit.site.path for unit in plan.units})
    if biases and write is not lora_as_peft:
        raise CheckpointError(
            f"`train_full` must not name biases beside {adapters[0].method} to be written for PEFT, which trains "
            f"{next(iter(biases))} and the like with LoRA alone. Save it with `save_pretrained` instead."
        )
    units = Units(model, store, one_task(store, task))
    tensors, words, roles = write(units, adapters)
    tensors |= {f"{PREFIX}{name}": value for name, value in biases.items()}
    for path, state in full.items():
        tensors |= {f"{PREFIX}{path}.{name}": value for name, value in state.items()}
    if write is lora_as_peft:
        words["bias"] = "all" if biases else "none"
    words |= {
        "modules_to_save": sorted(full) or None,
        "base_model_name_or_path": (plan.backbone.name or None) if with_full else None,
        "task_type": None,
        "inference_mode": True,
    }
    return PeftFiles(tensors, words, roles)


def import_peft(model: Model, folder: str | Path, *, task: str = "default") -> Model:
    """Attach a LoRA, a DoRA, an (IA)³ or a VeRA that PEFT saved; its `modules_to_save` and biases are trained in full.

    Maps of different ranks or scales become several units, named `lora`, `lora_2` and so on. Keys of earlier
    releases of transformers are read by the rules with which it reads old checkpoints.

    Args:
        model: A plain backbone of the class that PEFT wrapped.
        folder: What PEFT's `save_pretrained` wrote, with safetensors.
        task: Name the weights get.

    Returns:
        The same object, with units of method `lora`, `ia3` or `vera`.

    Raises:
        CheckpointError: If the files are not there, or hold what these units on linear maps within the layers
            cannot express.
    """
    folder = Path(folder)
    check_present(folder, (CONFIG, WEIGHTS), "Save with PEFT's `save_pretrained`.", argument="folder")
    words = read_words(folder / CONFIG, ["peft_type"], argument="folder")
    halves = check_settings(words)
    sites = resolve(model)
    tensors = read_tensors(folder / WEIGHTS, argument="folder")
    matrices = _matrices(tensors, folder / WEIGHTS) if words["peft_type"] == "VERA" else {}
    of_units = {name: value for name, value in tensors.items() if path_and_half(name)[1] in halves}
    rest = {name: value for name, value in tensors.items() if name not in of_units}
    full = trained_beside(model, rest, words, halves)
    with open_tensors(folder / WEIGHTS, argument="folder") as opened:
        roles = (opened.metadata() or {}).get(ROLES)
    known = (*sites.sites, *sites.maps) if words["peft_type"] == "LORA" else sites.sites
    parts = parts_of(stored_maps(model, known, of_units, halves), words, roles, matrices)
    if not parts:
        raise CheckpointError(
            f"`folder` must hold {' and '.join(halves)} of some map, but {folder / WEIGHTS} has none. Save it again."
        )
    configs = configured(sites, parts, words["peft_type"].lower())
    with all_or_nothing(model) as kept, torch.no_grad():
        attach(model, _with_full(model, sites, configs, full), [task])
        fill_units(model, parts, task)
        fill(model, full, kept)
    return model


def _matrices(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Take the matrices of VeRA out of the tensors of a file."""
    if absent := [key for key in MATRICES if tensors.get(key, torch.empty(0)).dim() != 2]:
        raise CheckpointError(
            f"`folder` must hold the matrices of VeRA, but {file} lacks {' and '.join(absent)}. Save it with PEFT's "
            "`save_projection=True`."
        )
    return {key: tensors.pop(key) for key in MATRICES}


def _with_full(
    model: nn.Module, sites: SiteMap, configs: list[UnitConfig], full: Mapping[str, Tensor]
) -> list[UnitConfig]:
    """The configurations, with the words for what is trained in full."""
    if not full:
        return configs
    towers = tuple(dict.fromkeys(tower for config in configs for tower in config.towers or ()))
    words = words_of(model, sites, towers, full)
    if len(configs) == 1:
        return [configs[0].model_copy(update={"train_full": words})]
    return [*configs, FrozenConfig(towers=towers, train_full=words)]


def one_task(store: Store, task: str | None) -> str:
    """The task to write: the one named, or any where all share all weights.

    Raises:
        CheckpointError: If it is unknown, or must be given.
    """
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
