"""The keys of PEFT's files: which tensor of which map, also under the names of earlier releases of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.backbone.module_paths import at
from weft.core.backbone.sites import Site
from weft.core.errors import CheckpointError, unknown
from weft.core.files.interop.peft_full import saved_in_full

PREFIX = "base_model.model."
_OF_A_UNIT = re.compile(r"\.(lora|ia3|vera)_")


@dataclass(frozen=True, slots=True)
class StoredMap:
    """One linear map of a file, by its path in the backbone, with its roles and its tensors by name.

    Names are the path that it was trained under, then that in the backbone.
    """

    path: str
    names: tuple[str, ...]
    sites: tuple[Site, ...]
    tensors: Mapping[str, Tensor]


def stored_maps(
    model: nn.Module, sites: Iterable[Site], tensors: Mapping[str, Tensor], halves: tuple[str, ...]
) -> list[StoredMap]:
    """The maps that a file adapts, in the order of the backbone; each must have tensors of the names `halves`.

    Raises:
        CheckpointError: If a map is none of the backbone's, or lacks a tensor.
    """
    by_path: dict[str, list[Site]] = {}
    for site in sites:
        if site.role:
            by_path.setdefault(site.path, []).append(site)
    found: dict[str, dict[str, Tensor]] = {}
    trained_as: dict[str, str] = {}
    old = {old for old, _ in map(path_and_half, tensors)}
    now = current_names(model, old, by_path.__contains__)
    for name, value in tensors.items():
        path, half = path_and_half(name)
        found.setdefault(now[path], {})[half] = value
        trained_as[now[path]] = path
    found = {path: values for path, values in found.items() if not _is_never_called(model, path, values)}
    which = "that the family of the backbone names" if "lora_A" in halves else "within the layers"
    _check_known(model, found, by_path, which)
    for path, values in found.items():
        if lacking := [half for half in halves if half not in values]:
            raise CheckpointError(
                f"`folder` must hold both halves of {path}, but lacks {', '.join(lacking)}. Save it again."
            )
    return [
        StoredMap(path, (trained_as[path], path), tuple(by_path[path]), found[path])
        for path in by_path
        if path in found
    ]


def trained_beside(
    model: nn.Module, tensors: Mapping[str, Tensor], words: Mapping[str, Any], halves: tuple[str, ...]
) -> dict[str, Tensor]:
    """Name in the backbone to value, of what was trained in full: `modules_to_save` and biases.

    `tensors` are all but those of the units. PEFT also writes embeddings and heads that it did not train; what equals
    the backbone's own is left out.

    Raises:
        CheckpointError: If the settings announce nothing of the kind.
    """
    state = model.state_dict()
    stored = saved_in_full({name.removeprefix(PREFIX): value for name, value in tensors.items()})
    now = current_names(model, {name.rpartition(".")[0] for name in stored}, partial(_has_module, model))
    saved = [f".{word}." for word in words.get("modules_to_save") or ()]
    biases = words.get("bias", "none") != "none"
    full: dict[str, Tensor] = {}
    for name, value in stored.items():
        path, _, last = name.rpartition(".")
        current = f"{now[path]}.{last}" if path else name
        meant = (biases and last == "bias") or any(word in f".{current}" for word in saved)
        if meant or not _same(state.get(current), value):
            full[current] = value
    announced = saved or biases
    if odd := sorted(name for name in full if not announced or _OF_A_UNIT.search(name)):
        raise CheckpointError(
            f"`folder` must hold {' and '.join(halves)} alone, beside what `modules_to_save` and `bias` announce, but "
            f"holds {', '.join(odd[:3])}, which the backbone does not have so. Merge it in PEFT."
        )
    return full


def path_and_half(name: str) -> tuple[str, str]:
    """The map that a key such as `base_model.model.encoder.0.q.lora_A.weight` means, and which of its tensors."""
    path, _, half = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
    return path, half


def current_names(model: nn.Module, paths: Iterable[str], known: Callable[[str], bool]) -> dict[str, str]:
    """Path as stored to path in the backbone, by the rules with which transformers reads old checkpoints."""
    found = {path: path for path in paths}
    old = [path for path in found if not known(path)]
    if not old:
        return found
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    for path in old:
        name = f"{path}.weight"
        for rule in rules:
            name = rule.rename_source_key(name)[0]
        if known(renamed := name.removesuffix(".weight")):
            found[path] = renamed
    return found


def _has_module(model: nn.Module, path: str) -> bool:
    return isinstance(at(model, path), nn.Module)


def _is_never_called(model: nn.Module, path: str, values: Mapping[str, Tensor]) -> bool:
    """Whether a map is in PyTorch's own attention, which reads its weights, so that PEFT never trained its update.

    Raises:
        CheckpointError: If there is an update all the same.
    """
    front = path.rpartition(".")[0]
    if not isinstance(at(model, front), nn.MultiheadAttention):
        return False
    if any(bool(value.any()) for half, value in values.items() if half == "lora_B") or "lora_B" not in values:
        raise CheckpointError(
            f"`folder` must adapt maps that are called, but adapts {path}, whose weights PyTorch's attention reads "
            "without calling it, so that PEFT's update does nothing there. Leave it out with `exclude_modules`."
        )
    return True


def _check_known(
    model: nn.Module, found: Iterable[str], by_path: Mapping[str, list[Site]], which: str
) -> None:
    strange = [path for path in found if path not in by_path]
    for path in strange:
        if not _has_module(model, path):
            raise CheckpointError(unknown("a module of `folder`", path, by_path))
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise CheckpointError(
            f"`folder` must adapt linear maps {which}, but adapts {', '.join(strange[:5])}{more} too. Merge it in "
            "PEFT, or train it with these as `exclude_modules` or `modules_to_save`."
        )


def _same(own: Tensor | None, value: Tensor) -> bool:
    if own is None or own.shape != value.shape:
        return False
    own = own.detach().cpu()
    return torch.equal(own.to(value.dtype), value) or torch.equal(own, value.to(own.dtype))
