"""A tokenizer and a way of showing pictures, for models that have no processor of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from weft.core.backbone.text_length import tokenised
from weft.eval.readers.answer_tokens import padded_ids
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
        """The inputs that the pictures of rows become, drawn at random where `taught`; none where no row has any.

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
        ids: dict[int, list[int]] = {}
        masks: dict[int, list[int]] = {}
        for limit in dict.fromkeys(limits):
            places = [place for place, own in enumerate(limits) if own == limit]
            # Lists, for the tokenizer's own tensors take longer to build than the tokens to find.
            made = tokenised(self.tokenizer, [texts[place] for place in places], limit, length, "right")
            ids |= zip(places, made["input_ids"], strict=True)
            # Tokenizers of models that read padding like words return no mask.
            mask = made.get("attention_mask") or [[1] * len(own) for own in made["input_ids"]]
            masks |= zip(places, mask, strict=True)
        # Texts of one limit are of one length already.
        fill = self.tokenizer.pad_token_id if len({*limits}) > 1 else 0
        filled = [
            padded_ids([own[place] for place in sorted(own)], end) for own, end in ((ids, fill), (masks, 0))
        ]
        return filled[0], filled[1]


def unpaired(processor: Any) -> str | None:
    """Why a processor is no `PairedProcessor`, or None if it is one."""
    paired = isinstance(processor, PairedProcessor)
    return None if paired else "a tokenizer and pictures of its own are needed (a PairedProcessor)"
