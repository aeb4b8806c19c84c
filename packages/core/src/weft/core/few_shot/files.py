"""Heads on disk: `head.safetensors` and `head.json`, with what they were made from; there is no pickle.

Loading is strict, and a head that was made with another encoder, preprocessing or split is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from weft.core.errors import CheckpointError, FewShotError
from weft.core.few_shot.samples import listed
from weft.core.files.stored_files import open_tensors, read_words, written_together

WEIGHTS = "head.safetensors"
CONFIG = "head.json"
FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """What the features of a head were made from.

    Attributes:
        encoder: Fingerprint of the encoder, such as `ImageTextEncoder.fingerprint()`.
        preprocessing: Fingerprint of the image transform.
        split: Fingerprint of the images it was fitted on.
    """

    encoder: str
    preprocessing: str
    split: str


def write_head(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    words: Mapping[str, Any],
    *,
    provenance: Provenance | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write the two files of a head: its tensors, `class_weights` among them, and in words all else; see `save`."""
    classes = len(tensors["class_weights"])
    if class_names is not None and len(class_names) != classes:
        raise FewShotError(
            f"`class_names` must hold one name per class ({classes}), but holds {len(class_names)}. Give them in the "
            "order of the class weights."
        )
    plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with written_together(folder, WEIGHTS, CONFIG) as (weights, settings):
        save_file(plain, str(weights))
        values = {"format": FORMAT, "weft": version("weft-core"), **words}
        values["provenance"] = None if provenance is None else asdict(provenance)
        values["class_names"] = None if class_names is None else list(class_names)
        values["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        settings.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(folder)


def read_head(
    folder: str | Path, provenance: Provenance | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the two files of a head; the tensors are not compared with anything yet (see `check_fits`)."""
    folder = Path(folder)
    values = _read_json(folder)
    _check_provenance(folder, values["provenance"], provenance)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"`folder` must hold {WEIGHTS}, but {folder} does not. Save the head again.")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != values["sha256"]:
        raise CheckpointError(
            f"{weights} must be the file that {CONFIG} was written with, but its hash differs. Save the head again."
        )
    with open_tensors(weights, argument="folder") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if "class_weights" not in tensors:
        raise CheckpointError(f"{weights} must hold `class_weights`, but does not. Save the head again.")
    if not 0 <= values["num_samples"] <= sum(value.numel() for value in tensors.values()):
        raise CheckpointError(
            f"{folder / CONFIG} must name the samples that {WEIGHTS} holds, but names {values['num_samples']}. Save "
            "the head again."
        )
    return values, tensors


def class_names_of(folder: str | Path) -> list[str] | None:
    """The class names that were saved with a head, in the order of its classes, or None.

    Raises:
        CheckpointError: There is no such head.
    """
    names = _read_json(Path(folder))["class_names"]
    return None if names is None else list(map(str, names))


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"`folder` must hold {CONFIG}, but {folder} does not. Name a folder that `head.save(folder)` wrote."
        )
    values = {"at_bounds": {}, **read_words(path, argument="folder")}  # earlier heads lack it
    needed = {"format", "config", "selected", "selected_on", "num_samples", "provenance", "class_names"}
    lacking = sorted((needed | {"sha256"}) - values.keys())
    if values.get("format") != FORMAT or lacking:
        raise CheckpointError(
            f"{path} must be of format {FORMAT} with all its keys, but is of format {values.get('format')!r} and "
            f"lacks {', '.join(lacking) or 'none'}. Save the head again with this release of weft."
        )
    kinds: dict[str, Any] = {"config": dict, "selected": dict, "selected_on": str | None, "num_samples": int}
    kinds |= {"provenance": dict | None, "class_names": list | None, "at_bounds": dict}
    odd = [name for name, kind in kinds.items() if not isinstance(values[name], kind)]
    if odd or not all(isinstance(value, int | float) for value in values["selected"].values()):
        raise CheckpointError(
            f"{path} must hold what was saved, but {', '.join(odd or ['selected'])} is of another kind. Save the head "
            "again."
        )
    return values


def _check_provenance(folder: Path, saved: dict[str, str] | None, expected: Provenance | None) -> None:
    if expected is None:
        return
    if saved is None:
        raise CheckpointError(
            f"{folder} must say what it was made from, but was saved without `provenance`. Fit and save it again."
        )
    faults = [
        f"\n  - {name}: made with {saved.get(name)!r}, to be used with {value!r}"
        for name, value in asdict(expected).items()
        if saved.get(name) != value
    ]
    if faults:
        stale = f"{folder} must be made from what it is used with, but is stale. Fit it again:"
        raise CheckpointError(stale + "".join(faults))


def check_fits(folder: str | Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of a file, by name, that are not those that its settings describe; every fault is listed."""
    faults = [f"  - missing: {name}" for name in sorted(expected.keys() - found.keys())]
    faults += [f"  - unexpected: {name}" for name in sorted(found.keys() - expected.keys())]
    faults += [
        f"  - {name}: shape {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name].shape != found[name].shape
    ]
    faults += [
        f"  - {name}: not finite in {int((~torch.isfinite(value)).sum())} places"
        for name, value in sorted(found.items())
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    labels = found.get("cache.labels")
    if labels is not None and labels.numel():
        outside = ((labels < 0) | (labels >= len(found["class_weights"]))).nonzero().flatten().tolist()
        if outside:
            faults.append(f"  - cache.labels: out of range at {listed(outside)}")
    if faults:
        raise CheckpointError("\n".join([f"{Path(folder) / WEIGHTS} does not fit its {CONFIG}:", *faults]))
