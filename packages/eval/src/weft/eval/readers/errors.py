"""Errors of readers."""

from __future__ import annotations

from weft.eval.errors import EvalError


class ReaderError(EvalError, ValueError):
    """A model, its processor or a row cannot be read as asked."""


class MissingProcessorError(ReaderError):
    """A model's folder has no processor, or a library that its processor needs is absent."""
