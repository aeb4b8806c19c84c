"""The texts of an evaluation in the order in which the official program reads them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from weft.eval.errors import ScoreInputError, ScoreTypeError, shown
from weft.eval.metrics.alignment import Alignment, align, require_text
from weft.eval.metrics.caption.tokenizer import tokenize_all


def caption_texts(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    tokenized: bool,
    subset: bool,
) -> tuple[Alignment, list[str], list[list[str]]]:
    """Pair and tokenise captions; the arguments are those of `caption_scores`.

    Returns:
        Which images are scored, the tokenised candidate of each, and its tokenised references.

    Raises:
        ScoreInputError: Ids do not match or an image has no reference.
        ScoreTypeError: A caption is not text.
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    candidates = [predictions[key] for key in paired.ids]
    groups = [_reference_texts(key, references[key]) for key in paired.ids]
    if tokenized:
        return paired, candidates, groups
    flat = iter(tokenize_all([text for group in groups for text in group]))
    return paired, tokenize_all(candidates), [[next(flat) for _ in group] for group in groups]


def _reference_texts(key: Hashable, reference: str | Sequence[str]) -> list[str]:
    texts = [reference] if isinstance(reference, str) else list(reference)
    if not texts:
        raise ScoreInputError(
            f"Each value of `references` must hold at least one caption, but that of {key!r} is empty. "
            "Leave the image out of both sides or add its captions."
        )
    if not all(isinstance(text, str) for text in texts):
        raise ScoreTypeError(
            f"Each value of `references` must be text or a list of texts, but that of {key!r} is {shown(texts)}. "
            "Take the caption out of its record."
        )
    return texts
