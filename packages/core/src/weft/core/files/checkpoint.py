"""Checkpoints: `adapter_model.safetensors`, keyed by addresses, and `weft_config.json`.

There is no pickle. Saving never touches the network; both files are written under temporary names and then
renamed. Loading is strict.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from weft.core.adapted.attaching import attach
from weft.core.adapted.bank import Store
from weft.core.adapted.tasks import add_task
from weft.core.all_or_nothing import Kept, all_or_nothing
from weft.core.backbone.fingerprint import Backbone, describe_structure, same_weights, weights_digest
from weft.core.backbone.resolving import resolve
from weft.core.errors import CheckpointError, unknown
from weft.core.files.hub import like_named, local_folder
from weft.core.files.stored_files import FLOATS, check_tensors, open_tensors, read_words
from weft.core.planning import Plan, plan

WEIGHTS = "adapter_model.safetensors"
CONFIG = "weft_config.json"
FORMAT = 1
_READ = ("model_class", "name", "structure", "weights")

Model = TypeVar("Model", bound=nn.Module)


def adapter_state(model: nn.Module, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Key to tensor of everything that training changes: all slots, and what is trained in full.

    With the parameters trained in full go the statistics that their modules keep, such as a batch norm's.

    Args:
        model: An adapted model.
        state_dict: Gathered state of the model, where its parameters are sharded; by default its own.

    Raises:
        CheckpointError: If the model has no units, or `state_dict` lacks a tensor.
    """
    store = _store(model)
    paths = {f"{key}.{slot}": f"weft.{key}.{slot}" for key, slot, _ in store.slots()}
    paths |= {full.key: full.path for full in store.plan.full} | _statistics(model, store.plan)
    values = _tensors(model) if state_dict is None else dict(state_dict)
    missing = sorted(path for path in paths.values() if path not in values)
    if missing:
        raise CheckpointError(
            f"`state_dict` must hold every trained tensor, but lacks {', '.join(missing[:5])}. Gather the "
            "full state of the model that was attached to."
        )
    return {key: values[path].detach() for key, path in paths.items()}


def save_adapter(
    model: nn.Module, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter of a model into a folder.

    Args:
        model: An adapted model.
        folder: Made if it is missing.
        state_dict: As for `adapter_state`.

    Raises:
        CheckpointError: As `adapter_state` does.
    """
    planned: Plan = _store(model).plan
    state = {key: value.to("cpu").contiguous() for key, value in adapter_state(model, state_dict).items()}
    config = {
        "format": FORMAT,
        "weft_version": version("weft-core"),
        **planned.to_dict(),
        "tensors": {key: list(value.shape) for key, value in state.items()},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f".{WEIGHTS}.part"
    save_file(
        state, weights, metadata={"format": "pt", "weft": str(FORMAT), "tasks": ",".join(planned.tasks)}
    )
    settings = folder / f".{CONFIG}.part"
    settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for part, name in ((weights, WEIGHTS), (settings, CONFIG)):
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, folder / name)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `weft_config.json` of a folder.

    Raises:
        CheckpointError: If the folder is not a checkpoint of weft, of a later format, or damaged.
    """
    folder = Path(folder)
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"`path` must hold {CONFIG} and {WEIGHTS}, but {' and '.join(absent)} is not in {folder}. "
            f"{_nearby(folder)}"
        )
    config = read_words(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"`path` must hold a checkpoint of format {FORMAT}, but {folder} is of format "
            f"{config.get('format')}. Install the release of weft that wrote it."
        )
    _check_words(folder / CONFIG, config)
    return config


def _check_words(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings that miss what loading reads of them."""
    backbone, tasks = config.get("backbone"), config.get("tasks")
    faults = [] if isinstance(backbone, Mapping) else ["`backbone` is no object"]
    if isinstance(backbone, Mapping):
        faults += [f"`backbone` lacks {name}" for name in _READ if name not in backbone]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        faults.append("`tasks` is no list of names")
    if not isinstance(config.get("method"), list | Mapping):
        faults.append("`method` is no method")
    if faults:
        raise CheckpointError(
            f"`path` must hold the settings that `save_pretrained` writes, but in {file} {', '.join(faults)}. "
            "Copy or save it again."
        )


def load_adapter(
    model: Model,
    path: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    check_weights: bool = True,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """Attach and load a checkpoint, or load it into a model that is attached already.

    Args:
        model: A plain backbone, which is adapted as the checkpoint says, or an adapted model.
        path: Folder that `save_pretrained` wrote, or id of a repository of the hub that `push_to_hub` wrote.
        tasks: Load the slots of these tasks alone, together with what all tasks share; by default all. An
            adapted model that lacks one of them gains it.
        check_weights: Refuse a backbone of the same shape with other weights.
        revision: Branch, tag or commit of the repository.
        dtype: Dtype of the master weights of a plain backbone. None stands for the dtypes they were saved in, so
            that loading gives back what was saved; an adapted model keeps its own.

    Returns:
        The same object.

    Raises:
        CheckpointError: If the files are not there, the backbone is another one, or keys are missing,
            unexpected, mis-shaped or not finite. The model is unchanged then: plain, or with its own tasks and
            values.
    """
    folder = local_folder(path, (CONFIG, WEIGHTS), revision)
    config = read_config(folder)
    with all_or_nothing(model) as kept:
        if isinstance(getattr(model, "weft", None), Store):
            _add_tasks(model, config, tasks, check_weights)
        else:
            _attach(model, config, tasks, check_weights)
            _cast_slots(_store(model), folder, dtype)
        _load(model, folder, config, tasks, kept)
    return model


def _attach(
    model: nn.Module, config: Mapping[str, Any], tasks: Sequence[str] | None, check_weights: bool
) -> None:
    _check_structure(describe_structure(model, resolve(model)), config["backbone"])
    kept = tuple(config["tasks"])
    if tasks is not None:
        _check_known_tasks(tasks, kept)
        kept = tuple(task for task in kept if task in set(tasks))
    planned = plan(model, config["method"], kept)
    if check_weights:
        _check_weights(model, planned, planned.backbone, config)
    attach(model, config["method"], kept)


def _add_tasks(
    model: nn.Module, config: Mapping[str, Any], tasks: Sequence[str] | None, check_weights: bool
) -> None:
    planned = _store(model).plan
    _check_structure(planned.backbone, config["backbone"])
    if check_weights:
        # What was changed since the units were attached counts; of a sharded model only its start is known.
        now = weights_digest(model, {full.path for full in planned.full})
        here = planned.backbone if now is None else replace(planned.backbone, weights=now)
        _check_weights(model, planned, here, config)
    if tasks is not None:
        _check_known_tasks(tasks, config["tasks"])
        for task in tasks:
            if task not in _store(model).tasks:
                add_task(model, task)


def _cast_slots(store: Store, folder: Path, dtype: torch.dtype | None) -> None:
    """Give slots that were just drawn the dtypes of the file, or one dtype."""
    with open_tensors(folder / WEIGHTS) as file:
        saved = {name: FLOATS.get(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    for key, slot, value in store.slots():
        wanted = saved.get(f"{key}.{slot}") if dtype is None else dtype
        if wanted is not None:
            value.data = value.data.to(wanted)


def _load(
    model: nn.Module, folder: Path, config: Mapping[str, Any], tasks: Sequence[str] | None, kept: Kept
) -> None:
    store = _store(model)
    targets: dict[str, Tensor] = {f"{key}.{slot}": value for key, slot, value in store.slots()}
    tensors = _tensors(model)
    targets |= {full.key: tensors[full.path] for full in store.plan.full}
    targets |= {key: tensors[path] for key, path in _statistics(model, store.plan).items()}
    with open_tensors(folder / WEIGHTS) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        wanted = set(targets)
        found = set(shapes)
        if tasks is not None:
            others = (set(config["tasks"]) | set(store.tasks)) - set(tasks)
            wanted = {key for key in wanted if key.rpartition(".")[2] not in others}
            found = {key for key in found if key.rpartition(".")[2] not in others}
        _check_keys(wanted, found, shapes, {key: tuple(targets[key].shape) for key in wanted & found}, folder)
        # Read twice rather than held at once: what is trained in full may be the whole model.
        check_tensors(((key, file.get_tensor(key)) for key in sorted(wanted)), targets, folder / WEIGHTS)
        with torch.no_grad():
            for key in sorted(wanted):
                kept.keep(targets[key], on_host=True)
                _fill(targets[key], file.get_tensor(key))


def _nearby(folder: Path) -> str:
    """What to do about a folder without an adapter: take the one inside a run's, or one of a like name."""
    if (folder / "adapter" / CONFIG).is_file():
        return f"Give {folder / 'adapter'}."
    return like_named(folder) or "Give the folder that `save_pretrained` wrote."


def _fill(target: Tensor, value: Tensor) -> None:
    """Copy a value in; a tensor that is sharded takes its own shards of it, on every process at once."""
    mesh = getattr(target, "device_mesh", None)
    if mesh is not None:
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), mesh, target.placements)  # type: ignore[attr-defined]
    target.copy_(value)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _statistics(model: nn.Module, planned: Plan) -> dict[str, str]:
    """Key to name of the saved buffers of modules whose own parameters are trained in full."""
    modules = {full.path.rpartition(".")[0]: full.key.rpartition(".")[0] for full in planned.full}
    found = {}
    for path, key in modules.items():
        module = model.get_submodule(path)
        for name, _ in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                found[f"{key}.{name}"] = f"{path}.{name}" if path else name
    return found


def _check_keys(
    wanted: set[str],
    found: set[str],
    shapes: Mapping[str, tuple[int, ...]],
    targets: Mapping[str, tuple[int, ...]],
    folder: Path,
) -> None:
    faults = []
    for title, keys in (("missing", wanted - found), ("unexpected", found - wanted)):
        if keys:
            listed = sorted(keys)
            more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
            faults.append(f"{title}: {', '.join(listed[:10])}{more}")
    for key in sorted(wanted & found):
        if shapes[key] != targets[key]:
            faults.append(f"mis-shaped: {key} is {shapes[key]} in the file and {targets[key]} in the model")
    if faults:
        raise CheckpointError(
            f"`path` must hold exactly the tensors of the model, but {folder} does not.\n"
            + "\n".join(faults)
            + "\n"
            "Attach the method that stands in its weft_config.json."
        )


def _check_structure(here: Backbone, saved: Mapping[str, Any]) -> None:
    if here.structure != saved["structure"]:
        raise _other_backbone("structure", here, saved, "")


def _check_weights(model: nn.Module, planned: Plan, here: Backbone, config: Mapping[str, Any]) -> None:
    """Refuse a backbone of other weights; where other parameters are trained in full, the keys differ and say so."""
    saved, own = config["backbone"], {full.key for full in planned.full} | set(_statistics(model, planned))
    if own != {key for key in config.get("tensors", own) if key.startswith("full.")}:
        return
    if not same_weights(model, resolve(model), here.weights, saved["weights"]):
        raise _other_backbone("weights", here, saved, ", or set `check_weights=False`")


def _other_backbone(what: str, here: Backbone, saved: Mapping[str, Any], otherwise: str) -> CheckpointError:
    return CheckpointError(
        f"`model` must be the checkpoint's backbone, but its {what} differ. The checkpoint was made for "
        f"{saved['model_class']} {saved['name']!r} (structure {saved['structure']}, weights "
        f"{saved['weights']}); this is {here.model_class} {here.name!r} (structure {here.structure}, weights "
        f"{here.weights}). Load the backbone that the checkpoint was made for{otherwise}."
    )


def _check_known_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    for task in tasks:
        if task not in known:
            raise CheckpointError(unknown("`tasks`", task, known))


def _store(model: nn.Module) -> Store:
    store = getattr(model, "weft", None)
    if not isinstance(store, Store):
        raise CheckpointError("`model` must have units, but has none. Call `attach` or `load_adapter` first.")
    return store
