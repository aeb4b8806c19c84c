"""What objectives keep between steps, in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn


def save_states(objectives: Mapping[str, Any], folder: Path) -> None:
    """Write `objective_NAME.safetensors` for every objective that has state.

    Args:
        objectives: Name to objective.
        folder: An existing folder.
    """
    for name, objective in objectives.items():
        if isinstance(objective, nn.Module):
            state = {key: value.contiguous() for key, value in objective.state_dict().items()}
            save_file(state, folder / f"objective_{name}.safetensors")


def load_states(objectives: Mapping[str, Any], folder: Path) -> None:
    """Read what `save_states` wrote, strictly."""
    for name, objective in objectives.items():
        if isinstance(objective, nn.Module):
            objective.load_state_dict(load_file(folder / f"objective_{name}.safetensors"))
