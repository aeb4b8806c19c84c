"""Heads on disk: `head.safetensors` and `head.json`, with what they were made from.

There is no pickle. Both files are written under temporary names and then renamed. Loading is strict, and a head
that was made with another encoder, preprocessing or split is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from weft.core.errors import CheckpointError, FewShotError
from weft.core.few_shot.model import FewShotHead, make_head
from weft.core.few_shot.samples import listed
from weft.core.few_shot.selection import Selection
from weft.core.files.stored_files import open_tensors, written_together

WEIGHTS = "head.safetensors"
CONFIG = "head.json"
FORMAT = 1
TEMPERATURE = "temperature"


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


def save_head(
    head: FewShotHead,
    folder: str | Path,
    *,
    provenance: Provenance | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write a fitted head.

    Args:
        head: The head.
        folder: Where to; made if it does not exist.
        provenance: What the features were made from; a head without it is loaded without that check.
        class_names: Names in the order of the classes; kept for people, never looked up.

    Returns:
        The folder.

    Raises:
        FewShotError: There is not one name per class.
    """
    if class_names is not None and len(class_names) != head.num_classes:
        raise FewShotError(
            f"`class_names` must hold one name per class ({head.num_classes}), but holds {len(class_names)}. "
            "Give them in the order of the class weights."
        )
    tensors = {name: value.detach().contiguous().cpu() for name, value in head.state_dict().items()}
    tensors[TEMPERATURE] = torch.tensor(head.temperature, dtype=torch.float64)
    with written_together(folder, WEIGHTS, CONFIG) as (weights, settings):
        save_file(tensors, str(weights))
        values = {
            "format": FORMAT,
            "weft": version("weft-core"),
            "config": head.config.model_dump(mode="json"),
            "selected": head.selected,
            "selected_on": head.selected_on,
            "num_samples": head.num_samples,
            "dtype": str(head.class_weights.dtype).removeprefix("torch."),
            "provenance": None if provenance is None else asdict(provenance),
            "class_names": None if class_names is None else list(class_names),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }
        settings.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(folder)


def load_head(folder: str | Path, *, provenance: Provenance | None = None) -> FewShotHead:
    """Read a head.

    Args:
        folder: A folder that `save_head` wrote.
        provenance: What the head is to be used with; what differs from what it was made from is refused.

    Returns:
        The head, on the CPU.

    Raises:
        CheckpointError: A file is absent, damaged, or of another format; tensors are missing, unexpected or
            mis-shaped; or the head is stale. Every fault is listed.
    """
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
    head = make_head(tensors["class_weights"], values["config"])
    head.num_samples = int(values["num_samples"])
    with torch.random.fork_rng(devices=[]):  # what is drawn is written over
        head.build(head.num_samples)
    head.to(tensors["class_weights"].dtype)
    _check_tensors(folder, {**head.state_dict(), TEMPERATURE: torch.ones(())}, tensors)
    temperature = float(tensors.pop(TEMPERATURE))
    head.load_state_dict(tensors)
    head.selection = Selection(dict(values["selected"]), values["selected_on"], temperature)
    return head.requires_grad_(False).eval()


def class_names_of(folder: str | Path) -> list[str] | None:
    """The class names that were saved with a head, in the order of its classes, or None.

    Raises:
        CheckpointError: There is no such head.
    """
    names = _read_json(Path(folder))["class_names"]
    return None if names is None else [str(name) for name in names]


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"`folder` must hold {CONFIG}, but {folder} does not. Name a folder that `head.save(folder)` wrote."
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        needed = {"format", "config", "selected", "selected_on", "num_samples", "provenance", "class_names"}
        lacking = sorted((needed | {"sha256"}) - values.keys())
    except (json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(f"{path} must be JSON, but cannot be read: {error}. Save it again.") from None
    if values.get("format") != FORMAT or lacking:
        raise CheckpointError(
            f"{path} must be of format {FORMAT} with all its keys, but is of format {values.get('format')!r} and "
            f"lacks {', '.join(lacking) or 'none'}. Save the head again with this release of weft."
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
        f"  - {name}: made with {saved.get(name)!r}, to be used with {value!r}"
        for name, value in asdict(expected).items()
        if saved.get(name) != value
    ]
    if faults:
        raise CheckpointError(
            "\n".join(
                [f"{folder} must be made from what it is used with, but is stale. Fit it again:", *faults]
            )
        )


def _check_tensors(folder: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
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
        raise CheckpointError("\n".join([f"{folder / WEIGHTS} does not fit its {CONFIG}:", *faults]))
