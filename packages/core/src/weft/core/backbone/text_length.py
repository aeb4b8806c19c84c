"""How long the texts of a batch are: as long as the longest of them, or as long as the model was trained to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_FIXED: set[str] = set()


def register_fixed_length(model_types: Iterable[str]) -> None:
    """Declare text models whose feature is that of the last position, padding included.

    Args:
        model_types: Values of `config.model_type`, those of models that hold such a text model included.
    """
    _FIXED.update(model_types)


register_fixed_length(("siglip", "siglip_text_model", "siglip2", "siglip2_text_model"))


def fixed_text_length(model: Any) -> int | None:
    """The length that every text is padded to, so that its features do not depend on the other texts of a batch.

    SigLIP and SigLIP 2 pool the last of a fixed number of positions. CLIP pools the end of the text, and others mask
    what is padded: there the longest text of a batch decides. Of the model, only the config is read.

    Returns:
        Tokens, or None where the longest text decides.

    Source: SigLIP (Zhai et al. 2023); the processors of SigLIP in `transformers` pad to the same length.
    """
    config: Any = getattr(model, "config", None)
    text: Any = getattr(config, "text_config", None) or config
    own = {getattr(part, "model_type", None) for part in (config, text)}
    if not own & _FIXED:
        return None
    return int(text.max_position_embeddings)


def tokenised(
    tokenizer: Any,
    texts: Sequence[str],
    limit: int | None = None,
    length: int | None = None,
    side: str | None = None,
) -> Any:
    """Tokens of texts, of one length.

    Args:
        tokenizer: One of `transformers`.
        texts: The texts.
        limit: Texts are cut there, in tokens; None cuts nothing.
        length: What `fixed_text_length` says of the model: all are padded to it, and cut there too.
        side: `right` or `left`, where they are padded; by default the tokenizer's own side.

    Returns:
        What the tokenizer returns, in lists.
    """
    sided = {} if side is None else {"padding_side": side}
    if length is None:
        cuts = {} if limit is None else {"truncation": True, "max_length": limit}
        return tokenizer(list(texts), padding=True, **sided, **cuts)
    whole = {"padding": "max_length", "max_length": length, **sided}
    if limit is None or limit >= length:
        return tokenizer(list(texts), truncation=True, **whole)
    return tokenizer.pad(tokenizer(list(texts), truncation=True, max_length=limit), **whole)
