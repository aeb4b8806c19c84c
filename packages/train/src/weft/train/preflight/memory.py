"""How much memory a step needs for what the plan counts: weights, gradients, the optimiser's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from weft.train.recipe.training import Recipe

_BYTES = 4
# Saved weights may be of any type: `auto` is counted like the widest.
_KEPT = {None: 4, "auto": 4, "float32": 4, "bfloat16": 2, "float16": 2}
_ADAM_STATES = 2
_BLOCK, _BLOCKS_OF_SCALES = 64, 256


@dataclass(frozen=True)
class Memory:
    """Bytes of one device that do not depend on the batch: what is trained in 32 bits, the rest as it is kept.

    Linears that bitsandbytes quantises are counted in 8 or 4 bits, with their scales. Activations come on top: they
    grow with rows and tokens of a batch, and `training.checkpointing` keeps few of them.

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


def estimate_memory(recipe: Recipe, plan: Any, model: PreTrainedModel) -> Memory:
    """Memory of a recipe's training step, from the counts of its plan and its model without weights."""
    trained = _BYTES * plan.trainable_parameters
    frozen = plan.total_parameters - plan.trainable_parameters
    linears = [] if recipe.backbone.quantize is None else quantised_linears(model)
    quantised = sum(linear.weight.numel() for linear in linears)
    return Memory(
        weights=trained
        + _KEPT[recipe.backbone.dtype] * (frozen - quantised)
        + sum(_packed(linear, recipe.backbone.quantize) for linear in linears),
        gradients=trained,
        optimizer=_ADAM_STATES * trained,
        average=trained if recipe.training.average else 0,
    )


def quantised_linears(model: PreTrainedModel) -> list[nn.Linear]:
    """The linears that transformers quantises: all but the head, and what is tied or kept in 32 bits."""
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and should_convert_module(name, kept)
    ]


def _packed(linear: nn.Linear, bits: str | None) -> int:
    """Bytes of a quantised weight with its scales: one of each row in 8 bits, one of each block of 64 in 4.

    Source: bitsandbytes, `Linear8bitLt`; QLoRA (Dettmers et al. 2023), section 3: scales are themselves kept in 8 bits,
        in blocks of 256 with a scale in 32 bits each.
    """
    size = linear.weight.numel()
    if bits == "8bit":
        return size + _BYTES * linear.out_features
    blocks = -(-size // _BLOCK)
    return size // 2 + blocks + _BYTES * -(-blocks // _BLOCKS_OF_SCALES)


def _shown(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
