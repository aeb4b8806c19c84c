"""Class features of learned context vectors: the text encoder reads vectors in place of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weft.core.errors import BackboneError
from weft.core.few_shot.encoder import ImageTextEncoder, check_names

_PLACEHOLDERS = ("x", "a", "of")


class Prompts(Protocol):
    """What CoOp and CoCoOp need of a text encoder."""

    width: int

    def __call__(self, context: Tensor) -> Tensor:
        """Unit features of all classes, shape (…, classes, features), for contexts of shape (…, tokens, width)."""

    def embed(self, text: str) -> Tensor:
        """Token embeddings of a text without special tokens, shape (tokens, width)."""


class ContextPrompts:
    """Prompts `[context] [class name].` for a CLIP-like model of transformers or open_clip, or for weft's own.

    The context takes the place of as many copies of one placeholder word; a hook on the token table swaps the
    vectors in, so that the model itself is not changed or copied.

    Args:
        encoder: The encoder; its tokenizer must be one of transformers, or have `encode` as open_clip's has.
        class_names: Names by class; underscores are read as spaces.
        context_tokens: Number of context vectors.
        allow_duplicates: Accept equal names.
        placeholder: A word that is one token; by default the first of some short words that is.

    Raises:
        BackboneError: The text model has no token table that can be reached, or no such word is one token.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        class_names: Sequence[str],
        *,
        context_tokens: int = 16,
        allow_duplicates: bool = False,
        placeholder: str | None = None,
    ) -> None:
        check_names(class_names, allow_duplicates=allow_duplicates)
        self.encoder = encoder
        self.context_tokens = context_tokens
        self._table = _token_table(encoder.model)
        self.width = self._table.embedding_dim
        names = [name.replace("_", " ") for name in class_names]
        words = _PLACEHOLDERS if placeholder is None else (placeholder,)
        self._tokens, self._first = self._with_placeholders(words, names)

    def __call__(self, context: Tensor) -> Tensor:
        """See `Prompts`; gradients reach the context. All contexts go through the text encoder together."""
        contexts = context.reshape(-1, *context.shape[-2:])
        classes = len(_ids(self._tokens))
        tokens = {name: value.repeat(len(contexts), 1) for name, value in self._tokens.items()}
        with self._swapped(contexts.repeat_interleave(classes, dim=0)):
            features = self.encoder.text_features(tokens)
        return features.reshape(*context.shape[:-2], classes, -1)

    def embed(self, text: str) -> Tensor:
        """See `Prompts`."""
        ids = self.encoder.pieces(text)
        return self._table.weight[torch.tensor(ids, device=self._table.weight.device)].detach().clone()

    def _with_placeholders(self, words: Sequence[str], names: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        """Tokens of all prompts, and where their placeholders begin."""
        for word in words:
            single = self.encoder.pieces(word + " " + word)
            tokens = self.encoder.tokens([f"{word} " * self.context_tokens + f"{name}." for name in names])
            row = _ids(tokens)[0].tolist()
            for first in range(len(row) - self.context_tokens + 1):
                same = row[first : first + self.context_tokens]
                if len(single) == 2 and all(token in single for token in same):
                    return tokens, first
        raise BackboneError(
            f"`placeholder` must be a word of one token that fits {self.context_tokens} times into a text of "
            f"{self.encoder.max_text_tokens} tokens, but {', '.join(map(repr, words))} "
            f"{'does' if len(words) == 1 else 'do'} not. Choose another one, or fewer."
        )

    @contextmanager
    def _swapped(self, contexts: Tensor) -> Iterator[None]:
        first, last = self._first, self._first + self.context_tokens

        def swap(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            return torch.cat([output[:, :first], contexts.to(output.dtype), output[:, last:]], dim=1)

        handle = self._table.register_forward_hook(swap)
        try:
            yield
        finally:
            handle.remove()


def _ids(tokens: dict[str, Tensor]) -> Tensor:
    """Token ids of texts, as libraries name them."""
    return tokens["input_ids"] if "input_ids" in tokens else tokens["text"]


def _token_table(model: nn.Module) -> nn.Embedding:
    texts: list[Any] = [getattr(model, name, None) for name in ("text_model", "text_encoder")]
    tables = [text.get_input_embeddings() for text in texts if hasattr(text, "get_input_embeddings")]
    tables += [getattr(part, "token_embedding", None) for part in (model, getattr(model, "text", None))]
    table = next((table for table in tables if isinstance(table, nn.Embedding)), None)
    if not isinstance(table, nn.Embedding):
        raise BackboneError(
            "`encoder` must be a CLIP-like model of transformers or open_clip, or weft's own, with a text tower that "
            f"reads token vectors, to learn prompts, but is a {type(model).__name__}. Load one, or choose a head "
            "without prompts."
        )
    return table
