"""Losses and scores for those who watch in TensorBoard or W&B, through transformers' own callbacks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.integrations import get_reporting_integration_callbacks

from weft.train.errors import RunError

_VARIABLE = "TENSORBOARD_LOGGING_DIR"


def check_reporting(names: Sequence[str]) -> None:
    """Refuse what cannot be reported to, before the run begins.

    Raises:
        RunError: If the package is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise RunError(
                f"`tracking.report_to` needs {name}, which is not installed. Run `pip install {name}`, or leave it "
                "out."
            )


def reporting_callbacks(names: Sequence[str], folder: Path) -> list[Any]:
    """Callbacks of the trainer, which act in its first process alone.

    TensorBoard's files lie in `tensorboard/` in the run's folder, unless `TENSORBOARD_LOGGING_DIR` names another place.
    """
    callbacks = []
    for kind in get_reporting_integration_callbacks(list(names)):
        callback = kind()
        if hasattr(callback, "logging_dir") and _VARIABLE not in os.environ:
            callback.logging_dir = str(folder / "tensorboard")
        callbacks.append(callback)
    return callbacks
