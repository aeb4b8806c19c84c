"""A model that a reader is held against, with what the model and its processor themselves make of some rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.eval.readers import Reader, Row, ask, reader_for

LORA: Mapping[str, Any] = {"method": "lora", "rank": 2, "sharing": "multiple"}


def picture(width: int, height: int, seed: int) -> Any:
    """A picture of noise, as a PIL image.

    Args:
        width: In pixels.
        height: In pixels.
        seed: Seed of its pixels.
    """
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def mixed_rows() -> list[Row]:
    """Four rows of two tasks: texts and answers of different lengths, one picture each, of different shapes."""
    asked = [
        ("a", "what colour is the circle?", (60, 40), "red"),
        ("b", "describe the picture", (64, 64), "a small blue circle"),
        ("a", "how many are there?", (40, 60), "three"),
        ("b", "what shape is that? one word", (96, 48), "a large purple hexagon"),
    ]
    return [
        ask(text, [picture(*size, seed)], name=f"{task}/{seed}", task=task, answer=answer)
        for seed, (task, text, size, answer) in enumerate(asked)
    ]


@dataclass(frozen=True)
class Subject:
    """A model with its processor.

    Attributes:
        title: What messages and tables call it.
        model: The model, in evaluation mode; it is not changed.
        processor: Its processor.
        own_inputs: Rows to the tensors that the processor itself makes of them, to be asked.
        own_loss: Rows to the mean loss that the model itself computes from the processor's own tensors; None where
            the model computes none.
        rows: Rows to learn; of two tasks, a picture each.
        method: What the model is adapted with to tell the rows of its tasks apart, or None where it cannot be.
        reader_name: Name of the reader, or `auto`.
    """

    title: str
    model: Any
    processor: Any
    own_inputs: Callable[[Sequence[Row]], dict[str, Tensor]]
    own_loss: Callable[[Sequence[Row]], Tensor] | None = None
    rows: Sequence[Row] = field(default_factory=mixed_rows)
    method: Mapping[str, Any] | None = field(default_factory=lambda: LORA)
    reader_name: str = "auto"

    @property
    def reader(self) -> Reader:
        """A new reader of the model."""
        return reader_for(self.model.config, self.processor, self.reader_name)

    def wide(self) -> Any:
        """A copy of the model in double precision, in which differences are not of rounding."""
        return copy.deepcopy(self.model).to(torch.float64)
