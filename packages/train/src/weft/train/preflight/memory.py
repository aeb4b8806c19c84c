"""How much memory a step needs for what the plan counts: weights, gradients, the optimiser's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weft.train.recipe.training import Recipe

_BYTES = 4
# Saved weights may be of any type: `auto` is counted like the widest.
_KEPT = {None: 4, "auto": 4, "float32": 4, "bfloat16": 2, "float16": 2}
_ADAM_STATES = 2


@dataclass(frozen=True)
class Memory:
    """Bytes of one device that do not depend on the batch: what is trained in 32 bits, the rest as it is kept.

    Quantised weights are counted as they were before. Activations come on top: they grow with rows and tokens of a
    batch, and `training.checkpointing` keeps few of them.

    Attributes:
        weights: All weights.
        gradients: Gradients of the trained weights.
        optimizer: The two moments of AdamW of the trained weights.
        average: The moving average of the trained weights, if there is one.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.optimizer + self.average

    def __str__(self) -> str:
        average = f", moving average {_shown(self.average)}" if self.average else ""
        return (
            f"{_shown(self.total)} and activations: weights {_shown(self.weights)}, gradients "
            f"{_shown(self.gradients)}, optimiser {_shown(self.optimizer)}{average}"
        )


def estimate_memory(recipe: Recipe, plan: Any) -> Memory:
    """Memory of a recipe's training step, from the counts of its plan.

    Args:
        recipe: The recipe.
        plan: The plan of its model and method.
    """
    trained = _BYTES * plan.trainable_parameters
    frozen = plan.total_parameters - plan.trainable_parameters
    return Memory(
        weights=trained + _KEPT[recipe.backbone.dtype] * frozen,
        gradients=trained,
        optimizer=_ADAM_STATES * trained,
        average=trained if recipe.training.average else 0,
    )


def _shown(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
