"""A run also reports to TensorBoard and W&B, where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from weft.train.engine import reporting
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.runs.run import execute


class Watching(TrainerCallback):
    """Stands for TensorBoard's callback."""

    seen: ClassVar[list[dict[str, float]]] = []
    places: ClassVar[list[str | None]] = []

    def __init__(self) -> None:
        self.logging_dir: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append(dict(logs))
        self.places.append(self.logging_dir)


def test_losses_go_to_the_callbacks_of_transformers(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Watching)
    monkeypatch.setattr(reporting, "find_spec", lambda name: True)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    values["tracking"]["report_to"] = ["tensorboard"]
    folder = execute(load_recipe(values)).folder
    assert sum("loss" in logs for logs in Watching.seen) == 3
    assert set(Watching.places) == {str(Path(folder) / "tensorboard")}


def test_what_is_not_installed_is_told_first(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    values["tracking"]["report_to"] = ["wandb"]
    with pytest.raises(RunError, match=r"`tracking\.report_to` needs wandb, which is not installed"):
        execute(load_recipe(values))


def test_heads_without_a_trainer_report_to_nobody() -> None:
    with pytest.raises(RecipeError, match=r"`tracking\.report_to` is for runs with a trainer"):
        load_any("xmadapter/dtd", ["tracking.report_to=[wandb]"])
