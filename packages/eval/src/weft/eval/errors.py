"""Errors of weft.eval: each also is the built-in error it resembles."""

from __future__ import annotations

from collections.abc import Sequence


class EvalError(Exception):
    """Base of every error that weft.eval raises on purpose; its text holds no credentials of addresses."""

    def __str__(self) -> str:
        # Not at the top: errors are imported by quick commands.
        from weft.data.sources.credentials import without_secrets

        return without_secrets(super().__str__())


class ScoreInputError(EvalError, ValueError):
    """Predictions or references cannot be scored as they are."""


class ImageProcessorError(EvalError, ValueError):
    """The image processor of a model cannot be loaded, or cannot take a picture."""


class ScoreTypeError(EvalError, TypeError):
    """A prediction or a reference has the wrong type."""


class FormatError(EvalError, ValueError):
    """A file is not in the format its name or its reader promises."""


class TrackingError(EvalError, RuntimeError):
    """The tracking store cannot do what was asked."""


class ServingError(EvalError, ValueError):
    """A request cannot be answered as it was sent."""


class ComparisonError(EvalError, ValueError):
    """Runs cannot be compared as they are."""


class MissingToolError(EvalError, RuntimeError):
    """An optional program or library is needed and absent."""


def shown(values: Sequence[object], limit: int = 5) -> str:
    """The first few offenders of a list, as messages name them; an ellipsis stands for those left out."""
    text = ", ".join(map(repr, values[:limit]))
    return text + (", …" if len(values) > limit else "")
