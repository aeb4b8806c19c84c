"""Checkpoints that are complete or not there: temporary folder, manifest, rename; a run resumes from the latest."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerState

from weft.train.errors import RunError
from weft.train.output.files import sha256_of
from weft.train.output.run_files import as_written

MANIFEST = "manifest.json"
BEFORE = "Remove it: --resume then takes the checkpoint before."
_NAME = re.compile(r"checkpoint-(\d+)$")


def seal(partial: Path, final: Path) -> None:
    """Turn a fully written folder into a checkpoint, in one step that cannot be seen half done.

    Args:
        partial: Folder that holds every file.
        final: Name it gets. A folder of that name is replaced.
    """
    manifest = {
        path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in partial.rglob("*"):
        _sync(path)
    _sync(partial)
    if final.exists():
        shutil.rmtree(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(final)
    _sync(final.parent)


def is_complete(checkpoint: Path) -> bool:
    """Whether every file of the manifest is there, unchanged."""
    file = checkpoint / MANIFEST
    if not file.is_file():
        return False
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and all(
        (checkpoint / name).is_file()
        and isinstance(entry, dict)
        and (checkpoint / name).stat().st_size == entry.get("bytes")
        and sha256_of(checkpoint / name) == entry.get("sha256")
        for name, entry in manifest.items()
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step that is complete, or None."""
    return next((path for path in _by_step(folder) if is_complete(path)), None)


def state_of(checkpoint: Path) -> TrainerState:
    """What the trainer wrote down of itself in a complete checkpoint.

    Raises:
        RunError: If it has not the types that the trainer resumes with.
    """
    with as_written(checkpoint, BEFORE):
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        for name, like in vars(TrainerState()).items():
            value = getattr(state, name)
            numbers = isinstance(like, int | float) and not isinstance(like, bool)
            fits = isinstance(value, int | float) if numbers else isinstance(value, type(like))
            if like is not None and not fits:
                raise TypeError(f"{name} of trainer_state.json is {value!r}")
    return state


def save_states(objectives: Mapping[str, Any], folder: Path) -> None:
    """Write `objective_NAME.safetensors` into a folder for every objective that has state."""
    for name, objective in objectives.items():
        if isinstance(objective, nn.Module):
            state = {key: value.contiguous() for key, value in objective.state_dict().items()}
            save_file(state, folder / f"objective_{name}.safetensors")


def load_states(objectives: Mapping[str, Any], folder: Path) -> None:
    """Read what `save_states` wrote, strictly."""
    for name, objective in objectives.items():
        if isinstance(objective, nn.Module):
            objective.load_state_dict(load_file(folder / f"objective_{name}.safetensors"))


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name says."""
    match = _NAME.search(checkpoint.name)
    assert match is not None, "checkpoints are found by this name"
    return int(match.group(1))


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what interrupted savings left behind."""
    for path in _by_step(folder)[keep:]:
        shutil.rmtree(path)
    remove_partial(folder)


def remove_partial(folder: Path) -> None:
    """Remove what interrupted savings left behind."""
    for path in folder.glob(".saving-*"):
        shutil.rmtree(path)


def how_to_resume(folder: Path) -> str:
    """A sentence that says how the run of a folder that broke off is taken up again."""
    latest = latest_checkpoint(folder / "checkpoints")
    if latest is None:
        return "There is no checkpoint yet: --overwrite starts again."
    return f"--resume resumes it from {latest.name}."


def require_resumable(folder: Path) -> Path:
    """The checkpoint to resume from.

    Raises:
        RunError: If there is none, naming what was found.
    """
    found = latest_checkpoint(folder)
    if found is None:
        seen = ", ".join(path.name for path in _by_step(folder)) or "no checkpoint at all"
        raise RunError(
            f"`--resume` needs a complete checkpoint in {folder}, but there is {seen}. Start without it."
        )
    return found


def _by_step(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if _NAME.search(path.name)]
    return sorted(found, key=step_of, reverse=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
