"""Adapters from and for other libraries: PEFT's LoRA, DoRA and (IA)³, and bottleneck adapters of AdapterHub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModel, PreTrainedModel

from weft.core import load_adapter
from weft.core.files.interop.adapterhub import import_adapterhub
from weft.core.files.interop.peft import CONFIG as ADAPTER_CONFIG
from weft.core.files.interop.peft import export_peft, import_peft
from weft.core.files.saving import CONFIG as WEFT_CONFIG
from weft.core.files.stored_files import read_words
from weft.train.backbones.loading import load_adapted
from weft.train.backbones.saved import fault_of_loading, load_saved, saved_path
from weft.train.errors import RunError
from weft.train.output.folders import check_writable
from weft.train.output.result import ADAPTER
from weft.train.recipe.loading import load_recipe


def export_adapter(
    adapter: Path, output: Path, *, backbone: str | None = None, task: str | None = None
) -> None:
    """Write one task's LoRA, DoRA or (IA)³ in PEFT's format.

    Args:
        adapter: Folder of a finished run, or one that `save_pretrained` of an adapted model wrote.
        output: Folder to write, made if it is missing.
        backbone: Folder or hub id of the model it was trained on; a run knows its own.
        task: The task; needed if there are several and they do not share all weights.

    Raises:
        RunError: If the folder is neither, or the backbone cannot be loaded.
        CheckpointError: If PEFT's format cannot hold the adapter.
    """
    check_writable(output, "OUTPUT")
    is_run = (adapter / "recipe.yaml").is_file() and (adapter / ADAPTER).is_dir()
    if not is_run and not (adapter / WEFT_CONFIG).is_file():
        raise RunError(
            f"`ADAPTER` must be the folder of a finished run or of a saved adapter, with {WEFT_CONFIG}, but {adapter} "
            "is neither. Give the folder that `weft train` or `save_pretrained` wrote."
        )
    weights = adapter / ADAPTER if is_run else adapter
    if backbone is not None:
        model = load_adapter(plain_model(backbone), weights)
    elif is_run:
        model = load_adapted(load_recipe(adapter / "recipe.yaml"), folder=adapter, adapter=weights).model
    else:
        raise RunError(
            "`--backbone` must be given for an adapter without a recipe, but is not. Name the folder or hub id of the "
            "model it was trained on."
        )
    export_peft(model, output, task=task)


def import_adapter(source: Path, output: Path, *, backbone: str, task: str = "default") -> dict[str, Any]:
    """Read an adapter of PEFT or of AdapterHub and save it as weft does.

    Args:
        source: What PEFT's `save_pretrained` or AdapterHub's `save_adapter` wrote, with safetensors.
        output: Folder to write, made if it is missing.
        backbone: Folder or hub id of the model it was trained on.
        task: Name its weights get.

    Returns:
        The plan of the adapted model, as plain data.

    Raises:
        RunError: If the folder holds no adapter, or the backbone cannot be loaded.
        CheckpointError: If the adapter computes what no unit of weft does.
    """
    check_writable(output, "OUTPUT")
    settings = source / ADAPTER_CONFIG
    if not settings.is_file():
        raise RunError(
            f"`SOURCE` must hold {ADAPTER_CONFIG} of PEFT or AdapterHub, but {source} does not. Give the folder that "
            "PEFT's `save_pretrained` or AdapterHub's `save_adapter` wrote."
        )
    words = read_words(settings, argument="SOURCE")
    read = import_peft if "peft_type" in words else import_adapterhub
    model = read(plain_model(backbone), source, task=task)
    model.save_pretrained(output)
    plan: dict[str, Any] = model.weft.plan.to_dict()
    return plan


def plain_model(name: str) -> Any:
    """A saved model of transformers, in the class that its config names.

    Args:
        name: Folder or hub id, or `miniature`.

    Raises:
        RunError: If it cannot be loaded.
    """
    path = saved_path(name, "--backbone")
    try:
        config = load_saved(AutoConfig, path)
        named = getattr(transformers, str(next(iter(config.architectures or ()), "")), AutoModel)
        known = isinstance(named, type) and issubclass(named, PreTrainedModel)
        return load_saved(named if known else AutoModel, path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"`--backbone` must be a folder or a hub id that can be reached, but {name!r} cannot be loaded: "
            f"{fault_of_loading(error)}"
        ) from None
