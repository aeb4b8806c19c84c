"""A tokenizer and a way of showing pictures, for models that have no processor of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from weft.eval.readers.batch import Batch

Show = Callable[[Sequence[Sequence[Any]]], dict[str, Tensor]]


@dataclass(frozen=True)
class PairedProcessor:
    """What weft's own models read with.

    Args:
        tokenizer: Any tokenizer of transformers.
        show: Pictures of each row to the model's inputs, such as a `weft.eval.evaluate.visual.Visual`: pixels, or
            features that were extracted once.
        max_text_tokens: Texts are cut there, as in the papers that these models come from; None cuts nothing.
    """

    tokenizer: Any
    show: Show
    max_text_tokens: int | None = None

    def __call__(self, texts: Sequence[str], pictures: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        """Tokens and pictures of some rows."""
        return {**self.texts(texts), **self.pictures(pictures)}

    def texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, padded on the right."""
        cut = {} if self.max_text_tokens is None else {"truncation": True, "max_length": self.max_text_tokens}
        made = self.tokenizer(list(texts), padding=True, padding_side="right", **cut)
        return {name: torch.tensor(made[name], dtype=torch.long) for name in ("input_ids", "attention_mask")}

    def pictures(self, pictures: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        """The inputs that pictures become; none where no row has any."""
        return self.show(pictures) if any(pictures) else {}


def stored(batch: Batch, features: Tensor) -> Batch:
    """A batch that reads features instead of pixels.

    Args:
        batch: A batch with `pixel_values`.
        features: What the vision tower makes of them, shape `(rows, pictures, tokens, width)`.
    """
    inputs = {name: value for name, value in batch.inputs.items() if name != "pixel_values"}
    return replace(batch, inputs={**inputs, "visual_features": features})
