"""`transformers.Trainer` with checkpoints that hold the adapter alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from weft.core.files.checkpoint import load_adapter


class AdapterCheckpoints:
    """Mixin that lets a trainer resume from, and go back to, adapters that it saved.

    A trainer saves an adapted model by `save_pretrained`, which writes the adapter alone. Its own loading looks for
    a whole model or a model of PEFT, so both ways of loading are ours. Optimiser, schedule and random states are the
    trainer's as ever.

    Example:
        >>> from transformers import Trainer
        >>> class AdapterTrainer(AdapterCheckpoints, Trainer):
        ...     pass
    """

    model: nn.Module
    state: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_adapter(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        # It is the same model; a tower's running statistics may have moved since that step.
        load_adapter(self.model, self.state.best_model_checkpoint, check_weights=False)
