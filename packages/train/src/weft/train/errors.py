"""Errors of recipes and runs. The command line prints them as one message and ends with their exit code."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class _DiscreetError(Exception):
    """Says what it was raised with, without the credentials of the addresses in it."""

    def __str__(self) -> str:
        from weft.data.sources.credentials import (
            without_secrets,  # not at the top: `weft --help` is quick without it
        )

        return without_secrets(super().__str__())


class RecipeError(_DiscreetError, ValueError):
    """A recipe, or an override of it, breaks a rule. The message lists every fault."""


class RunError(_DiscreetError, RuntimeError):
    """A run cannot start, go on or be read, for a reason that its user can mend."""

    exit_code = 2


class StoppedError(RunError):
    """A run ended early because it was told to by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


MOST_NAMES = 12


def near(value: object, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, or with those that fit into a line or two if none is near."""
    names = sorted(known)
    matches = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    if matches:
        return f"Did you mean {' or '.join(repr(m) for m in matches)}?"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"Known: {', '.join(names[:MOST_NAMES])}{more}."
