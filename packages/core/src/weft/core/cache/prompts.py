"""Class features of learned context vectors: the text encoder reads vectors where words would stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weft.core.cache.encoder import ImageTextEncoder, check_names, unit
from weft.core.errors import BackboneError


class Prompts(Protocol):
    """What CoOp and CoCoOp need of a text encoder."""

    width: int

    def __call__(self, context: Tensor) -> Tensor:
        """Unit features of all classes, shape (classes, features), for a context of shape (tokens, width)."""

    def embed(self, text: str) -> Tensor:
        """Token embeddings of a text without special tokens, shape (tokens, width)."""


class ContextPrompts:
    """Prompts `[context] [class name].` for a CLIP-like model of transformers.

    The context takes the place of as many copies of one placeholder word; a hook on the token table swaps the
    vectors in, so that the model itself is not changed or copied.

    Args:
        encoder: The encoder; its tokenizer must be one of transformers.
        class_names: Names by class; underscores are read as spaces.
        context_tokens: Number of context vectors.
        allow_duplicates: Accept equal names.
        placeholder: A word that is one token.

    Raises:
        BackboneError: The text model has no token table that can be reached, or the word is not one token.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        class_names: Sequence[str],
        *,
        context_tokens: int = 16,
        allow_duplicates: bool = False,
        placeholder: str = "x",
    ) -> None:
        check_names(class_names, allow_duplicates=allow_duplicates)
        self.encoder = encoder
        self.context_tokens = context_tokens
        self._table = _token_table(encoder.model)
        self.width = self._table.embedding_dim
        names = [name.replace("_", " ") for name in class_names]
        self._tokens = encoder.tokens([f"{placeholder} " * context_tokens + f"{name}." for name in names])
        self._first = self._find_placeholders(placeholder)

    def __call__(self, context: Tensor) -> Tensor:
        """See `Prompts`; gradients reach the context."""
        with self._swapped(context):
            output = self.encoder.model.get_text_features(**self._tokens)  # type: ignore[operator]
        return unit(output)

    def embed(self, text: str) -> Tensor:
        """See `Prompts`."""
        ids = self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._table.weight[torch.tensor(ids, device=self._table.weight.device)].detach().clone()

    def _find_placeholders(self, placeholder: str) -> int:
        ids = self._tokens["input_ids"]
        wanted = self.encoder.tokenizer(placeholder + " " + placeholder, add_special_tokens=False)[
            "input_ids"
        ]
        row = ids[0].tolist()
        for first in range(len(row) - self.context_tokens + 1):
            same = row[first : first + self.context_tokens]
            if len(wanted) == 2 and all(token in wanted for token in same):
                return first
        raise BackboneError(
            f"`placeholder` must be a word of one token that fits {self.context_tokens} times into a text of "
            f"{self.encoder.max_text_tokens} tokens, but {placeholder!r} does not. Choose another one, or fewer."
        )

    @contextmanager
    def _swapped(self, context: Tensor) -> Iterator[None]:
        first, last = self._first, self._first + self.context_tokens

        def swap(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            own = context.to(output.dtype).expand(output.shape[0], -1, -1)
            return torch.cat([output[:, :first], own, output[:, last:]], dim=1)

        handle = self._table.register_forward_hook(swap)
        try:
            yield
        finally:
            handle.remove()


def _token_table(model: nn.Module) -> nn.Embedding:
    text = getattr(model, "text_model", None)
    table = None if text is None else getattr(text, "get_input_embeddings", lambda: None)()
    if not isinstance(table, nn.Embedding) or not hasattr(model, "get_text_features"):
        raise BackboneError(
            "`encoder` must be a CLIP-like model of transformers, with `text_model` and `get_text_features`, to "
            f"learn prompts, but is a {type(model).__name__}. Load one, or choose a head without prompts."
        )
    return table
