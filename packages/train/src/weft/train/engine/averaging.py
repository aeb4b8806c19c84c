"""A moving average of the trained weights, kept beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.train.engine.sharding import sharded_like, whole

AVERAGE = "average.safetensors"


class WeightAverage(TrainerCallback):
    """Exponential moving average of what is trained.

    `average <- d * average + (1 - d) * weights` after every step, with `d = min(decay, (1 + step) / (10 + step))`, so
    that the first steps are forgotten soon.

    Args:
        model: The adapted model.
        decay: The `decay` above, in 0..1.

    Source: Polyak and Juditsky 1992; the rising decay is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.average = {name: value.detach().clone() for name, value in self.trained.items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move the average by one step."""
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, value in self.trained.items():
                self.average[name].lerp_(value, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the block."""
        kept = {name: value.detach().clone() for name, value in self.trained.items()}
        self.apply()
        try:
            yield
        finally:
            _copy(kept, self.trained)

    def apply(self) -> None:
        """Give the model the averaged weights."""
        _copy(self.average, self.trained)

    def state(self) -> dict[str, Tensor]:
        """The average, whole and on the CPU; every process must ask for it."""
        return {name: whole(value).contiguous().cpu() for name, value in self.average.items()}

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint."""
        saved = load_file(folder / AVERAGE)
        _copy({name: sharded_like(saved[name], value) for name, value in self.average.items()}, self.average)


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in source.items():
            target[name].copy_(value)
