"""A model that a recipe names, with what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from weft.eval.readers import Reader
from weft.eval.readers.image_processor import ProcessorTransform


@dataclass
class LoadedBackbone:
    """A model with what belongs to it.

    Attributes:
        model: The model, frozen.
        tokenizer: Its tokenizer.
        transform: Its image processor, or None without a tower.
        name: What the recipe calls it.
        reader: Reads it by its own processor, or None for weft's own models and new ones.
    """

    model: PreTrainedModel
    tokenizer: Any
    transform: ProcessorTransform | None
    name: str
    reader: Reader | None = None
