"""Original `.pth` files of models: read without running any code in them, and their names turned into others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from weft.core.errors import CheckpointError


def read_original(path: Path, kind: str, advice: str) -> Any:
    """What a file holds, which must be tensors alone; `kind` and `advice` are for the message."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign or cut file can fail in any way; no code in it is run
        raise CheckpointError(
            f"`source` must be {kind} of tensors alone, but {path} cannot be read: {error}. {advice}"
        ) from error


def renamed(name: str, patterns: Iterable[tuple[str, str]]) -> str:
    """A name after all replacements."""
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name
