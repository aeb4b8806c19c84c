"""Tiny random models with real processors, tokenizers and chat templates, as the hub has them.

`tiny(name)` builds one of `TINY` and keeps it for the rest of the process: do not change it, copy its model first.
Needs Pillow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft.core.testing.processed import chat, encoders, prefix
from weft.core.testing.processed.stills import without_torchvision

__all__ = ["TINY", "Tiny", "tiny"]


@dataclass(frozen=True)
class Tiny:
    """A model with its processor.

    Attributes:
        name: Key of `TINY`.
        model: The model, in evaluation mode.
        processor: Its processor.
    """

    name: str
    model: Any
    processor: Any

    def save(self, folder: Path) -> Path:
        """Write model and processor in the hub's format, and return the folder."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return folder


TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    builder.__name__: builder for module in (chat, prefix, encoders) for builder in module.BUILDERS
}
"""Name to a function that gives a model and its processor."""


@functools.cache
def tiny(name: str) -> Tiny:
    """One of the tiny models, a key of `TINY`, built once."""
    without_torchvision()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = TINY[name]()
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() and "norm" not in parameter_name:
                torch.nn.init.normal_(parameter, std=0.2)
    model.config.architectures = [type(model).__name__]  # as a saved config says
    return Tiny(name, model.eval(), processor)
