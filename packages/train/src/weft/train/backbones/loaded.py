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
        reader: Reads it.
        name: What the recipe calls it.
        transform: The image processor of a paired reader's vision tower; None without a tower, and where the model's
            own processor reads pictures.
    """

    model: PreTrainedModel
    reader: Reader
    name: str
    transform: ProcessorTransform | None = None

    @property
    def words(self) -> Any:
        """What is saved beside the model to read texts: its tokenizer, or the processor that holds one."""
        return self.reader.processor.tokenizer if self.reader.paired else self.reader.processor
