"""What a run left behind, compared with another run's: the curve of its losses, and its weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def losses(run: Path) -> list[dict[str, float]]:
    """The losses of every log of a run, overall and of each task, as the newest checkpoint remembers them."""
    newest = max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [{k: v for k, v in entry.items() if k.startswith("loss")} for entry in history if "loss" in entry]


def assert_same_curve(one: Path, other: Path, steps: int) -> None:
    """Assert that two runs that log each of their steps have the same losses, to 1e-5."""
    expected, found = losses(one), losses(other)
    assert len(expected) == steps
    for single, changed in zip(expected, found, strict=True):
        assert single.keys() == changed.keys()
        assert all(abs(single[key] - changed[key]) < 1e-5 for key in single)


def adapter_weights(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of the adapter that a finished run saved."""
    return load_file(run / "adapter" / "adapter_model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    """Assert that two finished runs saved the same adapter, to what another order of summing changes."""
    first, second = adapter_weights(one), adapter_weights(other)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=1e-5, rtol=1e-4, msg=key)
