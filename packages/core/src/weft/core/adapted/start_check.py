"""How far fresh units move what a model returns, on one batch."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.errors import AttachError
from weft.core.unit.protocol import UnitConfig

# Rounding that passes for no change, relative to the norm of an output.
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


class StartWarning(UserWarning):
    """A model whose units are not trained yet returns something else than its backbone."""


@contextlib.contextmanager
def checked_start(
    model: Any, batch: Mapping[str, Any] | None, configs: tuple[UnitConfig, ...]
) -> Iterator[None]:
    """Within it units are attached to a model; after it comes the warning, if outputs on a batch moved.

    The model is called before and after in evaluation mode, with the batch as its arguments by name, but for the
    `task_ids` of rows that belong to another task than the first. A batch of None checks nothing.

    Raises:
        AttachError: If the model is on the meta device.
    """
    if batch is None:
        yield
        return
    if any(value.is_meta for value in model.parameters()):
        raise AttachError(
            "`check` must be left out on the meta device, where a model returns no numbers, but it is given. Load the "
            "weights first."
        )
    plain = {name: value for name, value in batch.items() if name != "task_ids"}
    before = _outputs(model, plain)
    yield
    task = {"task_ids": batch["task_ids"]} if "task_ids" in batch else {"task": model.weft.tasks[0]}
    with model.route(**task):
        after = _outputs(model, plain)
    # Prompts make hidden states longer: what they move shows in the outputs of the same shape.
    same = [name for name, value in before.items() if name in after and after[name].shape == value.shape]
    distances = {name: _distance(before[name], after.get(name)) for name in same or before}
    moved = [name for name, found in distances.items() if not found <= _ROUNDING.get(before[name].dtype, 0)]
    if moved:
        worst = max(moved, key=lambda name: distances[name])
        warnings.warn(_message(worst, distances[worst], configs), StartWarning, stacklevel=4)


def _outputs(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            found = dict(_numbers(model.eval()(**batch), ""))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found


def _distance(before: Tensor, after: Tensor | None) -> float:
    """Norm of the difference relative to that of `before`; infinite where they cannot be compared."""
    if after is None or after.shape != before.shape:
        return float("inf")
    finite = before.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return float("inf")
    first, second = (value[finite].double() for value in (before, after))
    difference, norm = float((second - first).norm()), float(first.norm())
    return difference / norm if norm else (float("inf") if difference else 0.0)


def _message(name: str, distance: float, configs: tuple[UnitConfig, ...]) -> str:
    found = f"the model must start as its backbone, but fresh units move `{name}` by {distance:.3g} times its norm."
    advice = []
    for config in configs:
        defaults = {name: type(config).model_fields[name].default for name in config.start_fields or ()}
        words = {name: value for name, value in defaults.items() if getattr(config, name) != value}
        if config.start_fields is None:
            advice.append(f"{config.label!r} cannot start as the backbone.")
        elif words:
            given = ", ".join(f"{key}={value!r}" for key, value in words.items())
            advice.append(f"{config.label!r} does with `{given}`, its default.")
    return " ".join([found, *advice])


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of floating-point numbers within an output, with its path."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name or "output", value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = vars(value)
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, f"{name}.{key}" if name else str(key))
