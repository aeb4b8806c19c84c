"""Loading a checkpoint: strictly, without a pickle, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from weft.core.adapted.attaching import attach
from weft.core.adapted.bank import Store, store_of
from weft.core.adapted.tasks import add_task
from weft.core.all_or_nothing import Kept, all_or_nothing
from weft.core.backbone.fingerprint import Backbone, describe_structure, same_weights, weights_digest
from weft.core.backbone.resolving import resolve
from weft.core.errors import CheckpointError, unknown
from weft.core.files.hub import like_named, local_folder
from weft.core.files.saving import CONFIG, FORMAT, WEIGHTS, statistics, tensors_of
from weft.core.files.stored_files import FLOATS, check_present, check_tensors, open_tensors, read_words
from weft.core.planning import Plan, plan
from weft.core.sharing import is_of
from weft.core.unit.protocol import UNITS

_READ = ("model_class", "name", "structure", "weights")

Model = TypeVar("Model", bound=nn.Module)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `weft_config.json` of a folder.

    Raises:
        CheckpointError: If the folder is not a checkpoint of weft, of a later format, or damaged.
    """
    folder = Path(folder)
    check_present(folder, (CONFIG, WEIGHTS), _nearby(folder))
    config = read_words(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"`path` must hold a checkpoint of format {FORMAT}, but {folder} is of format "
            f"{config.get('format')}. Install the release of weft that wrote it."
        )
    _check_words(folder / CONFIG, config)
    method = config["method"]
    config["method"] = [_today(words) for words in ([method] if isinstance(method, Mapping) else method)]
    return config


def _today(words: Any) -> Any:
    """The words of a unit, with what they left unsaid where the unit had no such field yet."""
    method = words.get("method") if isinstance(words, Mapping) else None
    return {**UNITS[method].earlier, **words} if isinstance(method, str) and method in UNITS else words


def _check_words(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings that miss what loading reads of them."""
    backbone, tasks = config.get("backbone"), config.get("tasks")
    faults = [] if isinstance(backbone, Mapping) else ["`backbone` is not an object"]
    if isinstance(backbone, Mapping):
        faults += [f"`backbone` lacks {name}" for name in _READ if name not in backbone]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        faults.append("`tasks` is not a list of names")
    if not isinstance(config.get("method"), list | Mapping):
        faults.append("`method` is not a method")
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
            _cast_slots(store_of(model), folder, dtype)
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
    planned = plan(model, config["method"], kept, some_tasks=True)
    if check_weights:
        _check_weights(model, planned, planned.backbone, config)
    attach(model, config["method"], kept, some_tasks=True)


def _add_tasks(
    model: nn.Module, config: Mapping[str, Any], tasks: Sequence[str] | None, check_weights: bool
) -> None:
    planned = store_of(model).plan
    _check_structure(planned.backbone, config["backbone"])
    if check_weights:
        # What was changed since the units were attached counts; of a sharded model only its start is known.
        now = weights_digest(model, {full.path for full in planned.full})
        here = planned.backbone if now is None else replace(planned.backbone, weights=now)
        _check_weights(model, planned, here, config)
    if tasks is not None:
        _check_known_tasks(tasks, config["tasks"])
        for task in tasks:
            if task not in store_of(model).tasks:
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
    store = store_of(model)
    targets: dict[str, Tensor] = {f"{key}.{slot}": value for key, slot, value in store.slots()}
    tensors = tensors_of(model)
    targets |= {full.key: tensors[full.path] for full in store.plan.full}
    targets |= {key: tensors[path] for key, path in statistics(model, store.plan).items()}
    with open_tensors(folder / WEIGHTS) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        wanted = set(targets)
        found = set(shapes)
        if tasks is not None:
            others = {*config["tasks"], *store.tasks} - {*tasks}
            wanted = {key for key in wanted if not _is_of_others(key, others, tasks)}
            found = {key for key in found if not _is_of_others(key, others, tasks)}
        _check_keys(wanted, found, shapes, {key: tuple(targets[key].shape) for key in wanted & found}, folder)
        # Read twice rather than held at once: what is trained in full may be the whole model.
        check_tensors(((key, file.get_tensor(key)) for key in sorted(wanted)), targets, folder / WEIGHTS)
        with torch.no_grad():
            for key in sorted(wanted):
                kept.keep(targets[key], on_host=True)
                _fill(targets[key], file.get_tensor(key))


def _is_of_others(key: str, others: Collection[str], tasks: Collection[str]) -> bool:
    """Whether a tensor belongs to tasks that are not asked for, and to none that is."""
    slot = key.rpartition(".")[2]
    return not key.startswith("full.") and not is_of(slot, tasks) and is_of(slot, others)


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
            + "\nAttach the method that is in its weft_config.json."
        )


def _check_structure(here: Backbone, saved: Mapping[str, Any]) -> None:
    if here.structure != saved["structure"]:
        raise _other_backbone("structure", here, saved, "")


def _check_weights(model: nn.Module, planned: Plan, here: Backbone, config: Mapping[str, Any]) -> None:
    """Refuse a backbone of other weights; where other parameters are trained in full, the keys differ and say so."""
    saved, own = config["backbone"], {full.key for full in planned.full} | set(statistics(model, planned))
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


class AdapterCheckpoints:
    """Mixin that lets `transformers.Trainer` resume from, and go back to, adapters that it saved.

    A trainer saves an adapted model by `save_pretrained`, which writes the adapter alone. Its own loading looks for
    a whole model or a model of PEFT, so both ways of loading are ours. Optimiser, schedule and random states are the
    trainer's as ever.

    Example:
        >>> from transformers import Trainer
        >>> class AdapterTrainer(AdapterCheckpoints, Trainer):
        ...     pass
    """

    model: nn.Module
    state: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_adapter(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        # It is the same model; a tower's running statistics may have moved since that step.
        load_adapter(self.model, self.state.best_model_checkpoint, check_weights=False)
