"""A tokenizer and a way of showing pictures, for models that have no processor of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weft.core.backbone.text_length import tokenised
from weft.eval.readers.batch import Batch
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Row

Show = Callable[[Sequence[Sequence[Any]]], dict[str, Tensor]]
Draw = Callable[[Sequence[Sequence[Any]], Sequence[str], Sequence[str]], dict[str, Tensor]]


@dataclass(frozen=True)
class PairedProcessor:
    """What weft's own models read with.

    Args:
        tokenizer: Any tokenizer of transformers; None where rows are only checked.
        show: Pictures of each row to the model's inputs, such as a `weft.eval.evaluate.visual.Visual`: pixels, or
            features that were extracted once; None where rows are only checked.
        draw: Pictures, the name that each row is drawn by and its text to the inputs of a row to train on; by default
            as `show`.
        text_length: Length that every text is padded to; by default the longest of a batch decides.
    """

    tokenizer: Any = None
    show: Show | None = None
    draw: Draw | None = None
    text_length: int | None = None

    def texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` of the texts of rows, padded on the right, each cut at its own limit."""
        limits = [row.text_tokens for row in rows]
        ids, mask = self.encoded([row.text for row in rows], limits, self.text_length)
        return {"input_ids": ids, "attention_mask": mask}

    def pictures(self, rows: Sequence[Row], *, taught: bool = False) -> dict[str, Tensor]:
        """The inputs that the pictures of rows become; none where no row has any.

        Args:
            rows: The rows.
            taught: Whether what is shown may be drawn at random.

        Raises:
            ReaderError: If the rows show unequal numbers of pictures.
        """
        shown = [row.pictures for row in rows]
        counts = sorted(set(map(len, shown)))
        if len(counts) > 1:
            raise ReaderError(
                f"`rows` of one batch must show the same number of images, but show {' and '.join(map(str, counts))}. "
                "Draw homogeneous batches: set training.mixing.unit to homogeneous."
            )
        if not any(counts):
            return {}
        assert self.show is not None, "rows are read by a processor that shows pictures"
        names = [row.draw for row in rows if row.draw is not None]
        if taught and self.draw is not None and len(names) == len(rows):
            return self.draw(shown, names, [row.text for row in rows])
        return self.show(shown)

    def encoded(
        self, texts: Sequence[str], limits: Sequence[int | None], length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens of texts, padded on the right, and their mask, both of shape `(texts, tokens)`.

        Args:
            texts: The texts.
            limits: Each is cut there, in tokens, as in the papers that these models come from; None cuts nothing.
            length: Length that all are padded to; by default the longest decides.
        """
        groups = {
            limit: [place for place, own in enumerate(limits) if own == limit]
            for limit in dict.fromkeys(limits)
        }
        parts = [
            _tensors(tokenised(self.tokenizer, [texts[place] for place in places], limit, length, "right"))
            for limit, places in groups.items()
        ]
        if len(parts) == 1:
            return parts[0]
        longest = max(ids.shape[1] for ids, _ in parts)
        order = torch.tensor([place for places in groups.values() for place in places]).argsort()
        fills = (self.tokenizer.pad_token_id, 0)
        padded = [
            torch.cat([functional.pad(part, (0, longest - part.shape[1]), value=fill) for part in own])
            for own, fill in zip(zip(*parts, strict=True), fills, strict=True)
        ]
        return padded[0][order], padded[1][order]


def _tensors(encoded: Any) -> tuple[Tensor, Tensor]:
    # The tokenizer's own tensors take longer to build than the tokens to find: it walks the lists in Python.
    ids = torch.tensor(encoded["input_ids"], dtype=torch.long)
    # Tokenizers of models that read padding like words return no mask.
    mask = encoded.get("attention_mask")
    return ids, torch.ones_like(ids) if mask is None else torch.tensor(mask, dtype=torch.long)


def stored(batch: Batch, features: Tensor) -> Batch:
    """A batch that reads features instead of pixels.

    Args:
        batch: A batch with `pixel_values`.
        features: What the vision tower makes of them, shape `(rows, pictures, tokens, width)`.
    """
    inputs = {name: value for name, value in batch.inputs.items() if name != "pixel_values"}
    return replace(batch, inputs={**inputs, "visual_features": features})
