"""Adapters from other libraries: PEFT's LoRA, DoRA and (IA)³, and bottleneck adapters of AdapterHub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.core.files.interop.adapterhub import import_adapterhub
from weft.core.files.interop.peft import import_peft
from weft.core.files.interop.peft_files import CONFIG as ADAPTER_CONFIG
from weft.core.files.stored_files import read_words
from weft.train.backbones.saved import plain_model
from weft.train.errors import RunError
from weft.train.output.folders import check_writable


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
