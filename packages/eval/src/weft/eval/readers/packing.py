"""Rows without padding: the tokens of a batch one after the other, each row attending to itself alone.

A decoder that builds its mask from positions keeps rows apart that begin at 0 anew; flash attention takes them as
sequences of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from weft.eval.readers.errors import ReaderError

IDS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
_KEPT_APART = {"full_attention", "sliding_attention", "chunked_attention"}


def packed(reader: Any) -> Any:
    """The same reader, whose `losses` leave the padding out.

    Raises:
        ReaderError: If rows of the model cannot be kept apart so.
    """
    alone = getattr(reader, "packs", None) is None
    fault = "it reads no prompt and answer in one sequence" if alone else _mixed_up(reader.config)
    if fault is not None:
        raise ReaderError(
            f"`training.packing` must be false for {reader.title} because {fault}, but is true. Leave it out."
        )
    return reader.changed(packs=True)


def padded(reader: Any) -> Any:
    """The same reader, whose `losses` read batches with their padding again."""
    return reader.changed(packs=False)


def _mixed_up(config: Any) -> str | None:
    """Why rows of a model are not kept apart without padding, or None if they are."""
    known = inspect.signature(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].forward).parameters
    layers = set(getattr(config.get_text_config(decoder=True), "layer_types", None) or ())
    if POSITIONS not in known:
        return "it takes no positions, by which rows are kept apart"
    if "token_type_ids" in known or "cross_attention_mask" in known:
        return "its masks say more than which row a token belongs to"
    if layers - _KEPT_APART:
        return f"it has layers of {', '.join(sorted(layers - _KEPT_APART))}, which read on from row to row"
    return None


@dataclass(frozen=True)
class Packed:
    """A batch without padding.

    Attributes:
        inputs: What the model reads; one row holds the tokens of all.
        kept: Which places of the padded batch hold tokens, shape `(rows, length)`.
        owners: Row of each token, shape `(tokens,)`.
    """

    inputs: dict[str, Any]
    kept: Tensor
    owners: Tensor

    def places(self, targets: Tensor) -> Tensor:
        """Places among the tokens that come before one to learn, shape `(places,)`.

        Args:
            targets: Which tokens of the padded batch are learned, shape `(rows, length)`.
        """
        before = torch.zeros_like(targets)
        before[:, :-1] = targets[:, 1:]
        return before[self.kept].nonzero().squeeze(1)


def pack(model: Any, inputs: Mapping[str, Tensor]) -> Packed:
    """Take the padding out of a batch.

    Args:
        model: The model; some compute their own positions.
        inputs: What it reads, padded on either side.
    """
    kept = inputs[MASK].bool()
    made: dict[str, Any] = {
        name: value[kept][None] if value.shape[:2] == kept.shape else value
        for name, value in inputs.items()
        if name != MASK
    }
    made |= {POSITIONS: _positions(model, inputs, kept), "use_cache": False}
    return Packed(made, kept, kept.nonzero()[:, 0])


def _positions(model: Any, inputs: Mapping[str, Tensor], kept: Tensor) -> Tensor:
    """Positions of the tokens, which restart in each row, shape `(1, tokens)`.

    Models with positions in space and time take these after the plain ones, shape `(4, 1, tokens)`.
    """
    plain = (kept.cumsum(1) - 1)[kept][None]
    rope = getattr(getattr(getattr(model, "module", model), "model", None), "get_rope_index", None)
    if rope is None:
        return plain
    known = inspect.signature(rope).parameters
    if "mm_token_type_ids" in known and not any(name.endswith("_grid_thw") for name in inputs):
        return torch.stack([plain] * 4)
    given = {name: value for name, value in inputs.items() if name in known}
    spread = rope(**given)[0]
    return torch.cat([plain[None], spread[:, kept][:, None].to(plain.dtype)])
