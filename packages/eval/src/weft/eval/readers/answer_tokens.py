"""The tokens of an answer, apart from those of its prompt: what a model sees when it writes; and rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_BLANK = "▁"  # how sentencepiece writes a blank


class AnswerTokens:
    """Encodes answers as they follow a prompt.

    The prompt's tokens followed by the answer's own are what generation sees. The tokens of both together may differ:
    a tokenizer may merge the last blank of a prompt with the first word of an answer.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Behind a special token a tokenizer writes no blank of its own, unless it writes one before every text.
        self._anchor = tokenizer.eos_token
        self._ahead = len(self._encoded(self._anchor))
        first = tokenizer.convert_ids_to_tokens(self._behind("a")[:1])[0]
        self._own_blank = first.startswith(_BLANK)

    def __call__(self, text: str) -> list[int]:
        """Tokens of a text in the middle of a sequence: no special ones are added.

        Args:
            text: The text. A blank that it begins with is left to a tokenizer that writes one itself.
        """
        return self._behind(text[1:] if self._own_blank and text.startswith(" ") else text)

    def _behind(self, text: str) -> list[int]:
        return self._encoded(self._anchor + text)[self._ahead :]

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


def padded_ids(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of token ids, the shorter ones filled at their ends, shape `(rows, length of the longest)`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=torch.long)


def stop_tokens(tokenizer: Any, config: Any) -> list[str]:
    """The tokens that end what a model of a config writes, as text."""
    parts = (tokenizer, config, config.get_text_config(decoder=True))
    ids: dict[int, None] = {}
    for value in (getattr(part, "eos_token_id", None) for part in parts):
        if value is not None:
            ids |= dict.fromkeys(value if isinstance(value, list | tuple) else (int(value),))
    return [token for token in tokenizer.convert_ids_to_tokens(list(ids)) if token]
