"""Errors of weft, and the one way in which unknown names and faulty configurations are reported.

Every message names the argument, the rule, the value and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class WeftError(Exception):
    """Base of all errors that weft raises on purpose."""


class ConfigError(WeftError, ValueError):
    """A configuration is wrong; the message lists every fault."""


class AddressError(WeftError, LookupError):
    """A site, a tower, a block or a component is not in the backbone."""


class BackboneError(WeftError, ValueError):
    """The backbone's family is unknown, or it is not the backbone that a checkpoint was made for."""


class AttachError(WeftError, RuntimeError):
    """Attaching or detaching is not possible in the model's present state."""


class RoutingError(WeftError, ValueError):
    """The rows of a batch cannot be assigned to tasks."""


class FewShotError(WeftError, ValueError):
    """Features, labels or options of a few-shot head break a rule."""


class CheckpointError(WeftError, ValueError):
    """A checkpoint does not fit; the message lists missing, unexpected and mis-shaped keys."""


def near_matches(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Known names that resemble `name`, best first.

    Returns:
        At most `limit` names; empty if nothing is near.

    >>> near_matches("hiden_size", ["hidden_size", "rank", "blocks"])
    ['hidden_size']
    """
    return difflib.get_close_matches(str(name), sorted(set(known)), n=limit, cutoff=0.6)


def unknown(what: str, name: object, known: Iterable[str], *, show: int = 12) -> str:
    """The sentence for a name that is not known.

    Args:
        what: What is named, such as "`towers`".
        name: The name that was not found.
        known: The names that exist.
        show: Largest number of known names listed when none is near.

    Returns:
        A sentence with near matches, or with the names that exist.

    >>> unknown("`blocks`", "fnn", ["ffn", "attention"])
    "`blocks` must be among the known names, but is 'fnn'. Did you mean 'ffn'?"
    """
    names = sorted(set(known))
    near = near_matches(str(name), names)
    start = f"{what} must be among the known names, but is {name!r}."
    if near:
        return f"{start} Did you mean {' or '.join(repr(match) for match in near)}?"
    if not names:
        return f"{start} There is none to choose from."
    listed = ", ".join(names[:show]) + (", …" if len(names) > show else "")
    return f"{start} Choose one of {listed}."


def faults_of(error: ValidationError) -> list[str]:
    """One line per fault of a pydantic error, each with its place."""
    lines = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(word) for word in fault["loc"])
        lines.append(f"- {place}: {fault['msg']}" if place else f"- {fault['msg']}")
    return lines
