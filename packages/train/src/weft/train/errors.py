"""Errors of recipes and runs. The command line prints them as one message and ends with their exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator


class TrainError(Exception):
    """Base of every error that weft.train raises on purpose; its text holds no credentials of addresses."""

    exit_code = 2

    def __str__(self) -> str:
        # Not at the top: `weft --help` is quick without it.
        from weft.data.sources.credentials import without_secrets

        return without_secrets(super().__str__())


class RecipeError(TrainError, ValueError):
    """A recipe, or an override of it, breaks a rule. The message lists every fault."""


class RunError(TrainError, RuntimeError):
    """A run cannot start, resume or be read, for a reason that its user can fix."""


class StoppedError(RunError):
    """A run ended early because it was told to by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


ROOTS = (
    "weft.kernels.errors.KernelError",
    "weft.core.errors.WeftError",
    "weft.data.errors.WeftDataError",
    "weft.eval.errors.EvalError",
    "weft.train.errors.TrainError",
)
"""The one root of each package's errors. By name: importing them all would load torch for a misspelt option."""


def is_mistake(error: BaseException) -> bool:
    """Whether an error is one of weft's own, which name what to fix."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in ROOTS for kind in type(error).__mro__)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


MOST_NAMES = 12


def near(value: object, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, or with those that fit into a line or two if none is near."""
    from weft.data.errors import near_matches  # not at the top, as above

    names = sorted(known)
    matches = near_matches(str(value), names)
    if matches:
        return f"Did you mean {' or '.join(repr(m) for m in matches)}?"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"Known: {', '.join(names[:MOST_NAMES])}{more}."
