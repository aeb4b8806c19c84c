"""Saving: `adapter_model.safetensors`, keyed by addresses, and `weft_config.json`. No network is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from weft.core.adapted.bank import store_of
from weft.core.errors import CheckpointError, ConfigError, unknown
from weft.core.files.stored_files import written_together
from weft.core.planning import Plan

WEIGHTS = "adapter_model.safetensors"
CONFIG = "weft_config.json"
FORMAT = 1
_FIRST = "Call `attach` or `load_adapter` first."
# Of no meaning for two small files: how a large model is cut, by whom it is written, and how one signs in.
_WITHOUT_MEANING = ("max_shard_size", "save_function", "token", "save_peft_format", "save_original_format")
# Argument to the one value that is what we do, and what to do for another.
_FIXED: dict[str, tuple[Any, str]] = {
    "safe_serialization": (True, "An adapter is never pickled; leave it out."),
    "push_to_hub": (False, "Call `model.push_to_hub(...)`."),
    "variant": (None, "An adapter has one file; save it into a folder of its own."),
    "distributed_checkpoint": (False, "Gather the state and give it as `state_dict`."),
}


def adapter_state(model: nn.Module, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Key to tensor of everything that training changes: all slots, and what is trained in full.

    With the parameters trained in full go the statistics that their modules keep, such as a batch norm's.

    Args:
        model: An adapted model.
        state_dict: Gathered state of the model, where its parameters are sharded; by default its own.

    Raises:
        CheckpointError: If the model has no units, or `state_dict` lacks a tensor.
    """
    store = store_of(model, CheckpointError, _FIRST)
    paths = {f"{key}.{slot}": f"weft.{key}.{slot}" for key, slot, _ in store.slots()}
    paths |= {full.key: full.path for full in store.plan.full} | statistics(model, store.plan)
    values = tensors_of(model) if state_dict is None else dict(state_dict)
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
    """Write the adapter of a model into a folder, which is made if it is missing; `state_dict` as in `adapter_state`.

    Raises:
        CheckpointError: As `adapter_state` does.
    """
    planned: Plan = store_of(model, CheckpointError, _FIRST).plan
    state = {key: value.to("cpu").contiguous() for key, value in adapter_state(model, state_dict).items()}
    config = {
        "format": FORMAT,
        "weft_version": version("weft-core"),
        **planned.to_dict(),
        "tensors": {key: list(value.shape) for key, value in state.items()},
    }
    about = {"format": "pt", "weft": str(FORMAT), "tasks": ",".join(planned.tasks)}
    with written_together(folder, WEIGHTS, CONFIG) as (weights, settings):
        save_file(state, weights, metadata=about)
        settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_save_options(options: Mapping[str, Any]) -> None:
    """Refuse arguments of `save_pretrained` that would be ignored.

    Raises:
        ConfigError: If a name is unknown, or a value asks for something else than is written.
    """
    for name, value in options.items():
        if name in _FIXED:
            fixed, advice = _FIXED[name]
            if value != fixed:
                raise ConfigError(f"`{name}` must be {fixed} for an adapter, but is {value!r}. {advice}")
        elif name not in _WITHOUT_MEANING:
            known = ["state_dict", "is_main_process", *_WITHOUT_MEANING, *_FIXED]
            raise ConfigError(unknown("an argument of `save_pretrained`", name, known))


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Name to tensor of all parameters and buffers of a model."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def statistics(model: nn.Module, planned: Plan) -> dict[str, str]:
    """Key to name of the saved buffers of modules whose own parameters are trained in full."""
    modules = {full.path.rpartition(".")[0]: full.key.rpartition(".")[0] for full in planned.full}
    found = {}
    for path, key in modules.items():
        module = model.get_submodule(path)
        for name, _ in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                found[f"{key}.{name}"] = f"{path}.{name}" if path else name
    return found
