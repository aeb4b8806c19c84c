"""Matching predictions to references by id, refusing what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weft.eval.errors import ScoreInputError, ScoreTypeError, shown


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which ids are scored.

    Attributes:
        ids: Scored ids, in the order of the references.
        missing: Number of references without a prediction.
        extra: Number of predictions without a reference.
    """

    ids: list[Hashable]
    missing: int
    extra: int


def align(
    predictions: Mapping[Any, Any], references: Mapping[Any, Any], *, subset: bool = False
) -> Alignment:
    """Pair predictions with references by id; `subset` scores the ids that both hold instead of refusing a part.

    Raises:
        ScoreTypeError: One side is not a mapping.
        ScoreInputError: One side is empty, or ids are missing or unknown and `subset` is false, or no id
            is common to both.
    """
    for name, side in (("predictions", predictions), ("references", references)):
        if not isinstance(side, Mapping):
            raise ScoreTypeError(
                f"`{name}` must map ids to values, but is a {type(side).__name__}. "
                "Build a dictionary keyed by sample id."
            )
        if not side:
            raise ScoreInputError(
                f"`{name}` must hold at least one id, but is empty. Check the file it came from."
            )
    ids = [key for key in references if key in predictions]
    missing = [key for key in references if key not in predictions]
    extra = [key for key in predictions if key not in references]
    if not ids:
        raise ScoreInputError(
            f"`predictions` and `references` must share ids, but share none: predictions hold "
            f"{_sample(predictions)}, references hold {_sample(references)}. "
            "Use the same split and the same id type on both sides."
        )
    if missing and not subset:
        raise ScoreInputError(
            f"`predictions` must hold all {len(references)} ids of the references, but {len(missing)} are "
            f"missing: {shown(missing)}. Predict them, or pass `subset=True` to score the other {len(ids)}."
        )
    if extra and not subset:
        raise ScoreInputError(
            f"`predictions` must hold only ids of the references, but {len(extra)} are unknown: {shown(extra)}. "
            "Remove them, or pass `subset=True` to leave them out."
        )
    return Alignment(ids, len(missing), len(extra))


def require_each(
    side: str,
    values: Mapping[Any, Any],
    ids: Iterable[Hashable],
    fits: Callable[[Any], bool],
    rule: str,
    remedy: str,
) -> None:
    """Check the value of every id; `side` names the argument, `rule` follows "must be" in the message.

    Raises:
        ScoreTypeError: At least one value does not fit; with their number and the first of them.
    """
    wrong = [key for key in ids if not fits(values[key])]
    if wrong:
        first = values[wrong[0]]
        raise ScoreTypeError(
            f"Each value of `{side}` must be {rule}, but {len(wrong)} are not: {shown(wrong)} (the first is a "
            f"{type(first).__name__}: {first!r}). {remedy}"
        )


def require_text(values: Mapping[Any, Any], ids: Iterable[Hashable], side: str = "predictions") -> None:
    """Check that predictions, or what they are compared to, are text.

    Raises:
        ScoreTypeError: At least one value is not a string.
    """
    require_each(side, values, ids, lambda value: isinstance(value, str), "a string", "Convert them to text.")


def _sample(side: Mapping[Any, Any]) -> str:
    key = next(iter(side))
    return f"{type(key).__name__} ids such as {key!r}"
